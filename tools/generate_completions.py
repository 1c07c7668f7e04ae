"""Make packaging/completions: what bash, zsh and fish complete of customerctl, from its commands.

usage: python -m tools.generate_completions [--check]

Labels of channels and ids of operations are asked from the daemon; nothing is said when it is away.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from customerctl._commands import COMMANDS
from customerctl.helping import OPTIONS
from customerctl.shapes import Parameter
from customerd.rpc.methods import METHODS
from tools.generated import ROOT, write_or_check

FOLDER = ROOT / "packaging" / "completions"
NOTE = "Made by tools/generate_completions.py; do not edit."

ASKED = {"labels": ("list", "channels", "label"), "operations": ("operations", "operations", "id")}
"""What the daemon is asked for: the command, and where in its answer the words are."""

PICK = "import json, sys; [print(row[sys.argv[2]]) for row in json.load(sys.stdin)[sys.argv[1]]]"
EVERYWHERE = tuple(
    (flag.partition(" ")[0], flag.partition(" ")[2], words) for flag, words in OPTIONS
)
FILES = ("PATH", "FILE")
"""Names of values that are files; others of such an option are known to its user alone."""
VALUED = tuple(flag for flag, value, _ in EVERYWHERE if value)
"""Options of every command that take a value, and by that decide which daemon is asked."""


def _value(command: str, parameter: Parameter) -> str:
    """Return what a parameter is completed with: words, @ and what is asked for, or nothing."""
    name, kind = parameter["name"], parameter["kind"]
    if "choices" in parameter:
        return " ".join(parameter["choices"])
    if kind in ("switch", "denial"):
        return "@none"
    if name == "label" and parameter["flag"]:
        return ""  # one that is not there yet
    return {
        "label": "@labels",
        "channel": "@labels",
        "channels": "" if command == "token-restrict" else "@labels",
        "operation": "@operations",
        "file": "@files",
        "methods": " ".join(sorted(method.name for method in METHODS)),
        "method": " ".join(COMMANDS if command == "help" else sorted(m.name for m in METHODS)),
    }.get(name, "")


def _places(command: str) -> list[str]:
    """Return what completes each argument by position; the last may repeat."""
    found = []
    for parameter in COMMANDS[command]["parameters"]:
        if not parameter["flag"]:
            repeated = "..." if parameter["kind"] in ("choices", "words") else ""
            found.append(_value(command, parameter) + repeated)
    return found


def _options(command: str) -> Iterator[tuple[str, str, str, str]]:
    """Yield flag, name of its value, what completes it, and what it means."""
    for parameter in COMMANDS[command]["parameters"]:
        if parameter["flag"]:
            value = _value(command, parameter)
            metavar = "" if value == "@none" else parameter["metavar"]
            yield parameter["flag"], metavar, value, _brief(parameter["help"])
    for flag, metavar, words in EVERYWHERE:
        if flag != "--version":
            yield flag, metavar, "@files" if metavar in FILES else "@none", _brief(words)


def _brief(text: str) -> str:
    text = text.replace("'", "\N{RIGHT SINGLE QUOTATION MARK}").replace("`", "").removesuffix(".")
    return text[:1].lower() + text[1:]


# -- bash -----------------------------------------------------------------------------------------


def bash() -> str:
    """Return the completion for bash; it needs nothing but bash itself."""
    return f"""# bash completion of customerctl. {NOTE}

_customerctl_ask() {{ # COMMAND LIST FIELD: what the daemon that the command line names answers
    local -a daemon=()
    local i
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${{COMP_WORDS[i]}} in
        {" | ".join(VALUED)})
            daemon+=("${{COMP_WORDS[i]}}" "${{COMP_WORDS[i + 1]}}")
            ;;
        esac
    done
    command timeout 3 customerctl "$1" --json "${{daemon[@]}}" 2>/dev/null </dev/null |
        command python3 -IS -c '{PICK}' "$2" "$3" 2>/dev/null
}}

_customerctl_offer() {{ # KIND: words, or @ and what is asked for
    local IFS=$'\\n' word
    local -a words=()
    case $1 in
    '' | @none) return ;;
    @files)
        compopt -o filenames 2>/dev/null
        COMPREPLY=($(compgen -f -- "$cur"))
        return
        ;;
{_bash_asked()}
    *) words=(${{1// /$IFS}}) ;;
    esac
    local typed=$cur before=
    if [[ $list == yes && $cur == *,* ]]; then
        before=${{cur%,*}},
        typed=${{cur##*,}}
    fi
    # A label may hold spaces: what is offered is quoted, what is typed may be.
    local plain=${{typed//\\\\/}}
    plain=${{plain#[\\"\\']}}
    for word in "${{words[@]}}"; do
        [[ $word == "$plain"* ]] && COMPREPLY+=("$before$(printf '%q' "$word")")
    done
}}

_customerctl() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD - 1]}}
    local command= place=0 list= i
    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${{COMP_WORDS[i]}} in
        {" | ".join(VALUED)}) ((i++)) ;;
        -*) _customerctl_valued "$command" "${{COMP_WORDS[i]}}" && ((i++)) ;;
        *) if [[ -z $command ]]; then command=${{COMP_WORDS[i]}}; else ((place++)); fi ;;
        esac
    done
    local -a places=() options=()
    case $command in
    '')
        options=({" ".join(flag for flag, _, _ in EVERYWHERE)})
        places=("{" ".join(COMMANDS)}")
        ;;
{_bash_commands()}
    *) return ;;
    esac
    if [[ $previous == -* ]]; then
        case $command:$previous in
{_bash_values()}
        esac
    fi
    if [[ $cur == -* ]]; then
        COMPREPLY=($(compgen -W "${{options[*]}}" -- "$cur"))
        return
    fi
    local last=$((${{#places[@]}} - 1))
    ((last >= 0)) || return
    if ((place > last)); then
        [[ ${{places[last]}} == *... ]] || return
        place=$last
    fi
    _customerctl_offer "${{places[place]%...}}"
}}

_customerctl_valued() {{ # COMMAND OPTION: whether a value follows
    case $1:$2 in
{_bash_valued()}
    esac
    return 1
}}

complete -F _customerctl customerctl
"""


def _bash_asked() -> str:
    return "\n".join(
        f"    @{kind}) mapfile -t words < <(_customerctl_ask {command} {place} {field}) ;;"
        for kind, (command, place, field) in ASKED.items()
    )


def _bash_commands() -> str:
    lines = []
    for name in COMMANDS:
        places = " ".join(f'"{place}"' for place in _places(name))
        lines += [
            f"    {name})",
            f"        options=({' '.join(flag for flag, *_ in _options(name))})",
            f"        places=({places})",
            "        ;;",
        ]
    return "\n".join(lines)


def _bash_values() -> str:
    lines = [
        f"        *:{flag}) _customerctl_offer {'@files' if name in FILES else '@none'}; return ;;"
        for flag, name, _ in EVERYWHERE
        if name
    ]
    for name, command in COMMANDS.items():
        kinds = {p["flag"]: p["kind"] for p in command["parameters"] if p["flag"]}
        for flag, metavar, value, _ in _options(name):
            if metavar and flag not in VALUED:
                several = "list=yes; " if kinds[flag] == "list" else ""
                lines.append(
                    f'        {name}:{flag}) {several}_customerctl_offer "{value}"; return ;;'
                )
    return "\n".join(lines)


def _bash_valued() -> str:
    pairs = [
        f"{name}:{flag}"
        for name in COMMANDS
        for flag, metavar, _, _ in _options(name)
        if metavar and flag not in VALUED
    ]
    return "    " + " | \\\n        ".join(pairs) + ") return 0 ;;"


# -- zsh ------------------------------------------------------------------------------------------


def zsh() -> str:
    """Return the completion for zsh."""
    return f"""#compdef customerctl
# {NOTE}

_customerctl_ask() {{ # COMMAND LIST FIELD: what the daemon that the command line names answers
    local -a daemon found
    local option
    for option in {" ".join(VALUED)}; do
        (( ${{+opt_args[$option]}} )) && daemon+=($option ${{(Q)opt_args[$option]}})
    done
    daemon+=($customerctl_daemon)
    found=("${{(@f)$(command timeout 3 customerctl $1 --json $daemon 2>/dev/null </dev/null |
        command python3 -IS -c '{PICK}' $2 $3 2>/dev/null)}}")
    found=(${{found:#}})
    (( $#found )) && compadd -a found
}}

_customerctl() {{
    local curcontext=$curcontext state line
    typeset -A opt_args
    local -a commands customerctl_daemon
    commands=(
{_zsh_names()}
    )
    _arguments -C \\
{_zsh_everywhere()}
        '1:command:->command' \\
        '*::argument:->argument'
    case $state in
    command) _describe command commands ;;
    argument)
        local option
        for option in {" ".join(VALUED)}; do
            (( ${{+opt_args[$option]}} )) && customerctl_daemon+=($option ${{(Q)opt_args[$option]}})
        done
        case $words[1] in
{_zsh_commands()}
        esac
        ;;
    esac
}}

{_zsh_asked()}
_customerctl "$@"
"""


def _zsh_names() -> str:
    return "\n".join(
        f"        '{name}:{_brief(command['summary'])}'" for name, command in COMMANDS.items()
    )


def _zsh_quoted(text: str) -> str:
    return text.replace("[", "\\[").replace("]", "\\]").replace(":", "\\:")


def _zsh_action(value: str, *, several: bool = False) -> str:
    if value == "@files":
        return "_files"
    if value.startswith("@"):
        function = f"_customerctl_{value[1:]}"
        return f"_sequence {function}" if several else function
    if not value:
        return " "
    return f"_sequence compadd - {value}" if several else f"({value})"


def _zsh_everywhere() -> str:
    lines = []
    for flag, metavar, words in EVERYWHERE:
        value = f":{metavar}:{'_files' if metavar in FILES else ' '}" if metavar else ""
        lines.append(f"        '{flag}[{_zsh_quoted(_brief(words))}]{value}' \\")
    return "\n".join(lines)


def _zsh_commands() -> str:
    lines = []
    for name, command in COMMANDS.items():
        kinds = {p["flag"]: p["kind"] for p in command["parameters"] if p["flag"]}
        lines.append(f"        {name})")
        lines.append("            _arguments \\")
        for flag, metavar, value, words in _options(name):
            several = kinds.get(flag) == "list"
            end = f":{metavar}:{_zsh_action(value, several=several)}" if metavar else ""
            lines.append(f"                '{flag}[{_zsh_quoted(words)}]{end}' \\")
        by_position = [p for p in command["parameters"] if not p["flag"]]
        for number, (parameter, place) in enumerate(
            zip(by_position, _places(name), strict=True), 1
        ):
            at = "*" if place.endswith("...") else str(number)
            action = _zsh_action(place.removesuffix("..."))
            lines.append(f"                '{at}:{parameter['metavar']}:{action}' \\")
        lines[-1] = lines[-1].removesuffix(" \\")
        lines.append("            ;;")
    return "\n".join(lines)


def _zsh_asked() -> str:
    return "".join(
        f"_customerctl_{kind}() {{ _customerctl_ask {command} {place} {field}; }}\n"
        for kind, (command, place, field) in ASKED.items()
    )


# -- fish -----------------------------------------------------------------------------------------


def fish() -> str:
    """Return the completion for fish."""
    return f"""# fish completion of customerctl. {NOTE}

function __customerctl_walk # COMMAND PLACE: whether this argument of this command is being typed
    set -l words (commandline -opc)
    set -l command
    set -l place 0
    set -l skip 0
    for word in $words[2..]
        if test $skip = 1
            set skip 0
        else if contains -- $word {" ".join(VALUED)}
            set skip 1
        else if string match -q -- '-*' $word
            if contains -- "$command:$word" $__customerctl_valued
                set skip 1
            end
        else if test -z "$command"
            set command $word
        else
            set place (math $place + 1)
        end
    end
    test "$command" = "$argv[1]"; or return 1
    switch "$argv[2]"
        case ''
            return 0
        case '*...'
            test $place -ge (string replace ... '' -- $argv[2])
        case '*'
            test $place = $argv[2]
    end
end

function __customerctl_ask # COMMAND LIST FIELD: what the daemon that the command line names answers
    set -l daemon
    set -l words (commandline -opc)
    for i in (seq 2 (count $words))
        if contains -- $words[$i] {" ".join(VALUED)}
            set -a daemon $words[$i] $words[(math $i + 1)]
        end
    end
    command timeout 3 customerctl $argv[1] --json $daemon 2>/dev/null </dev/null |
        command python3 -IS -c '{PICK}' $argv[2] $argv[3] 2>/dev/null
end

set -g __customerctl_valued {_fish_valued()}

complete -c customerctl -f
{_fish_everywhere()}
{_fish_commands()}
"""


def _fish_valued() -> str:
    return " ".join(
        f"{name}:{flag}"
        for name in COMMANDS
        for flag, metavar, _, _ in _options(name)
        if metavar and flag not in VALUED
    )


def _fish_everywhere() -> str:
    lines = []
    for flag, metavar, words in EVERYWHERE:
        value = " -r -F" if metavar in FILES else " -x" if metavar else ""
        only = " -n \"__customerctl_walk ''\"" if flag == "--version" else ""
        lines.append(f"complete -c customerctl{only} -l {flag[2:]}{value} -d '{_brief(words)}'")
    return "\n".join(lines)


def _fish_action(value: str) -> str:
    if value == "@files":
        return "-F"
    if value.startswith("@"):
        return f"-a '(__customerctl_ask {' '.join(ASKED[value[1:]])})'"
    return f"-a '{value}'"


def _fish_commands() -> str:
    lines = [
        f"complete -c customerctl -n \"__customerctl_walk '' 0\" -a {name}"
        f" -d '{_brief(command['summary'])}'"
        for name, command in COMMANDS.items()
    ]
    for name in COMMANDS:
        for number, place in enumerate(_places(name)):
            value = place.removesuffix("...")
            if not value:
                continue
            at = f"{number}..." if place.endswith("...") else str(number)
            lines.append(
                f"complete -c customerctl -n '__customerctl_walk {name} {at}' {_fish_action(value)}"
            )
        for flag, metavar, value, words in _options(name):
            if flag in {each for each, _, _ in EVERYWHERE}:
                continue
            given = f" -x {_fish_action(value)}" if value and metavar else " -x" if metavar else ""
            given = " -r -F" if value == "@files" else given
            lines.append(
                f"complete -c customerctl -n '__customerctl_walk {name}' -l {flag[2:]}{given}"
                f" -d '{words}'"
            )
    return "\n".join(lines)


def files() -> dict[Path, str]:
    """Return the text of every file by its path."""
    return {
        FOLDER / "bash" / "customerctl": bash(),
        FOLDER / "zsh" / "_customerctl": zsh(),
        FOLDER / "fish" / "customerctl.fish": fish(),
    }


if __name__ == "__main__":
    sys.exit(max(write_or_check(path, text) for path, text in files().items()))
