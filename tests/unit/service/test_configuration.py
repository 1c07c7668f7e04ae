"""Settings from a file and the environment, and what is said about mistakes in them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta, Struct, field

from zkchannels.service.configuration import (
    ConfigurationError,
    Duration,
    duration,
    load,
    refuse_open_password,
)


class Chain(Struct, frozen=True):
    """A section."""

    endpoints: list[str] = field(default_factory=lambda: ["a"])
    poll: Duration = 60.0
    margin: Duration | None = None
    fee_cap: Annotated[int, Meta(gt=0)] = 7
    confirmations: int | str = "finalized"


class Policy(Struct, frozen=True):
    """A section that there may be many of."""

    limit: int
    every: Duration = 1.0


class Settings(Struct, frozen=True):
    """All settings of these tests."""

    chain: Chain = field(default_factory=Chain)
    policies: dict[str, Policy] = field(default_factory=dict)
    log_level: str = "info"
    debug: bool = False


def from_file(tmp_path: Path, text: str, environment: dict[str, str] | None = None) -> Settings:
    """Load the settings from a file with this content."""
    path = tmp_path / "customerd.toml"
    path.write_text(text)
    return load(Settings, path, environment=environment or {})


def test_defaults_without_a_file() -> None:
    """Without a file and variables all defaults hold."""
    assert load(Settings, None, environment={}) == Settings()


def test_values_of_a_file(tmp_path: Path) -> None:
    """Values are read into their sections, durations as seconds."""
    settings = from_file(
        tmp_path,
        """
        log_level = "debug"
        [chain]
        endpoints = ["b", "c"]
        poll = "250ms"
        margin = "1h30m"
        confirmations = 3
        [policies.small]
        limit = 5
        every = "2d"
        """,
    )
    assert settings == Settings(
        chain=Chain(endpoints=["b", "c"], poll=0.25, margin=5400.0, confirmations=3),
        policies={"small": Policy(limit=5, every=172800.0)},
        log_level="debug",
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("log_levle = 'x'", "log_levle is not known; did you mean log_level?"),
        ("[chian]\npoll = 1", "chian is not known; did you mean chain?"),
        ("[chain]\nendpoint = []", r"in \[chain\]: endpoint is not known; .* endpoints\?"),
        ("[policies.a]\nlimti = 1", r"in \[policies.a\]: limti is not known; .* limit\?"),
        ("zzz = 1", "zzz is not known; known are chain, debug, log_level, policies"),
        ("[chain]\nfee_cap = 'much'", "chain.fee_cap: expected `int`, got `str`"),
        ("[chain]\nfee_cap = 0", "chain.fee_cap: expected `int` >= 1"),
        ("[chain]\npoll = 'soon'", "chain.poll: 'soon' is no duration"),
        ("[chain]\npoll = '5 parsecs'", "chain.poll: '5 parsecs' is no duration"),
        ("[chain]\npoll = -1", "chain.poll: expected `float` >= 0"),
        ("chain = 5", "chain: expected `object`, got `int`"),
        ("[policies.a]\n", "missing required field `limit`"),
        ("[chain", "Expected"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, message: str) -> None:
    """A mistake is refused with its place, the file's name, and what was probably meant."""
    with pytest.raises(ConfigurationError, match=message) as caught:
        from_file(tmp_path, text)
    assert "customerd.toml" in str(caught.value)


def test_unreadable_file(tmp_path: Path) -> None:
    """A missing file and one that is no text are configuration errors."""
    with pytest.raises(ConfigurationError, match="No such file"):
        load(Settings, tmp_path / "missing.toml", environment={})
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match=r"binary\.toml"):
        load(Settings, tmp_path / "binary.toml", environment={})


def test_environment_overrides(tmp_path: Path) -> None:
    """Variables override the file, each in the form of its type; other programs' are left alone."""
    settings = from_file(
        tmp_path,
        "[chain]\npoll = '5s'\nfee_cap = 9",
        {
            "CUSTOMERD_LOG_LEVEL": "true",
            "CUSTOMERD_DEBUG": "true",
            "CUSTOMERD_CHAIN_POLL": "2m",
            "CUSTOMERD_CHAIN_MARGIN": "7",
            "CUSTOMERD_CHAIN_CONFIRMATIONS": "12",
            "CUSTOMERD_CHAIN_ENDPOINTS": '["x", "y"]',
            "CUSTOMERD_POSTGRESQL": "/somewhere",
            "MERCHANTD_LOG_LEVEL": "error",
        },
    )
    assert settings == Settings(
        chain=Chain(endpoints=["x", "y"], poll=120.0, margin=7.0, fee_cap=9, confirmations=12),
        log_level="true",
        debug=True,
    )


@pytest.mark.parametrize(
    ("variable", "text", "message"),
    [
        ("CUSTOMERD_CHAIN_PULL", "1s", "CUSTOMERD_CHAIN_PULL is not known; .*CHAIN_POLL"),
        ("CUSTOMERD_CHAIN_FEE_CAP", "much", "chain.fee_cap: expected `int`, got `str`"),
        ("CUSTOMERD_CHAIN_POLL", "soon", "chain.poll: 'soon' is no duration"),
    ],
)
def test_mistakes_in_the_environment(variable: str, text: str, message: str) -> None:
    """A variable of a known section with an unknown key or a wrong value is refused."""
    with pytest.raises(ConfigurationError, match=message):
        load(Settings, None, environment={variable: text})


def test_prefix_is_the_program() -> None:
    """Another program's settings have its own prefix."""
    environment = {"MERCHANTD_LOG_LEVEL": "error", "CUSTOMERD_LOG_LEVEL": "debug"}
    assert load(Settings, None, prefix="MERCHANTD", environment=environment).log_level == "error"


@given(
    st.lists(
        st.tuples(st.integers(0, 10**6), st.sampled_from(["ms", "s", "m", "h", "d"])), min_size=1
    )
)
def test_durations_add_up(parts: list[tuple[int, str]]) -> None:
    """A duration is the sum of its parts, with or without blanks between them."""
    seconds = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
    expected = sum(number * seconds[unit] for number, unit in parts)
    assert duration("".join(f"{number}{unit}" for number, unit in parts)) == expected
    assert duration(" ".join(f"{number} {unit}" for number, unit in parts)) == expected


@pytest.mark.parametrize("text", ["", "s", "5", "5x", "-5s", "5s later", "1e3s", "5 5s", "\u0665s"])
def test_no_duration(text: str) -> None:
    """Anything but numbers with units is refused."""
    with pytest.raises(ValueError, match="no duration"):
        duration(text)


@pytest.mark.parametrize(
    "dsn",
    [
        "host=db dbname=wallet password=hunter2",
        "dbname=wallet PASSWORD = hunter2",
        "postgresql://customerd:hunter2@db/wallet",
        "postgresql://db/wallet?password=hunter2",
    ],
)
def test_a_password_in_a_file_that_others_read_is_refused(tmp_path: Path, dsn: str) -> None:
    """A configuration that holds the database's password has to be the owner's alone."""
    path = tmp_path / "customerd.toml"
    path.write_text(f'dsn = "{dsn}"\n')
    path.chmod(0o640)
    with pytest.raises(ConfigurationError, match="chmod 600") as caught:
        refuse_open_password(path, dsn, "customerd.database-password")
    assert "hunter2" not in str(caught.value)
    path.chmod(0o600)
    refuse_open_password(path, dsn, "customerd.database-password")


def test_a_file_without_a_password_may_be_read_by_all(tmp_path: Path) -> None:
    """Without a password, or with one that came by the environment, the file holds no secret."""
    path = tmp_path / "customerd.toml"
    path.write_text('dsn = "postgresql://customerd@db/wallet"\n')
    path.chmod(0o644)
    refuse_open_password(path, "postgresql://customerd@db/wallet", "x")
    refuse_open_password(path, "dbname=wallet password=hunter2", "x")
    refuse_open_password(tmp_path / "absent", "dbname=wallet password=hunter2", "x")
