# fish completion of customerctl. Made by tools/generate_completions.py; do not edit.

function __customerctl_walk # COMMAND PLACE: whether this argument of this command is being typed
    set -l words (commandline -opc)
    set -l command
    set -l place 0
    set -l skip 0
    for word in $words[2..]
        if test $skip = 1
            set skip 0
        else if contains -- $word --socket --wallet --token
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
        if contains -- $words[$i] --socket --wallet --token
            set -a daemon $words[$i] $words[(math $i + 1)]
        end
    end
    command timeout 3 customerctl $argv[1] --json $daemon 2>/dev/null </dev/null |
        command python3 -IS -c 'import json, sys; [print(row[sys.argv[2]]) for row in json.load(sys.stdin)[sys.argv[1]]]' $argv[2] $argv[3] 2>/dev/null
end

set -g __customerctl_valued establish:--deposit establish:--merchant-deposit establish:--label establish:--note establish:--idempotency-key close:--idempotency-key pay:--note pay:--idempotency-key refund:--note refund:--idempotency-key operations:--status operations:--limit wait:--timeout history:--operation history:--before history:--limit subscribe:--after recover:--merchant recover:--timeout signer-pair:--address signer-pair:--expires signer-address:--address token-create:--method token-create:--expires token-create:--note token-create:--channel token-create:--rate token-create:--spend token-restrict:--method token-restrict:--channel token-restrict:--expires token-restrict:--rate token-restrict:--spend logs:--channel logs:--operation logs:--since

complete -c customerctl -f
complete -c customerctl -l json -d 'print the result, or the error, as JSON'
complete -c customerctl -l socket -r -F -d 'where the daemon listens (or set CUSTOMERD_SOCKET)'
complete -c customerctl -l wallet -x -d 'the system’s daemon of this wallet: customerd@NAME.service'
complete -c customerctl -l token -r -F -d 'use the monitor socket, with the token in this file'
complete -c customerctl -l help -d 'explain the command'
complete -c customerctl -n "__customerctl_walk ''" -l version -d 'print the version of this program'
complete -c customerctl -n "__customerctl_walk '' 0" -a establish -d 'open a channel: lock a deposit in the merchant’s escrow'
complete -c customerctl -n "__customerctl_walk '' 0" -a list -d 'list all channels'
complete -c customerctl -n "__customerctl_walk '' 0" -a show -d 'show one channel'
complete -c customerctl -n "__customerctl_walk '' 0" -a rename -d 'give a channel another label'
complete -c customerctl -n "__customerctl_walk '' 0" -a close -d 'close a channel and pay both sides out on chain'
complete -c customerctl -n "__customerctl_walk '' 0" -a pay -d 'pay on a channel'
complete -c customerctl -n "__customerctl_walk '' 0" -a refund -d 'ask the merchant to pay back on a channel'
complete -c customerctl -n "__customerctl_walk '' 0" -a balance -d 'show what the channels and accounts hold'
complete -c customerctl -n "__customerctl_walk '' 0" -a estimate -d 'say what an operation would cost and take'
complete -c customerctl -n "__customerctl_walk '' 0" -a operations -d 'list operations, newest first'
complete -c customerctl -n "__customerctl_walk '' 0" -a operation -d 'show one operation with its steps'
complete -c customerctl -n "__customerctl_walk '' 0" -a wait -d 'wait for the end of an operation'
complete -c customerctl -n "__customerctl_walk '' 0" -a cancel -d 'cancel an operation that has not bound anything yet'
complete -c customerctl -n "__customerctl_walk '' 0" -a resume -d 'let operations go on that wait because the database went back in time'
complete -c customerctl -n "__customerctl_walk '' 0" -a history -d 'show what happened, newest first'
complete -c customerctl -n "__customerctl_walk '' 0" -a subscribe -d 'show events as they happen'
complete -c customerctl -n "__customerctl_walk '' 0" -a recover -d 'bring channels back, with what the merchants recorded'
complete -c customerctl -n "__customerctl_walk '' 0" -a backup -d 'write everything but the signer’s secrets into one encrypted file'
complete -c customerctl -n "__customerctl_walk '' 0" -a restore -d 'restore a backup, or a directory of them, into an empty database'
complete -c customerctl -n "__customerctl_walk '' 0" -a signer-status -d 'show the signer'
complete -c customerctl -n "__customerctl_walk '' 0" -a signer-pair -d 'let one signer pair itself, once and for a while'
complete -c customerctl -n "__customerctl_walk '' 0" -a signer-address -d 'show where this daemon is, for a signer that is paired already'
complete -c customerctl -n "__customerctl_walk '' 0" -a signer-forget -d 'forget the paired signer, cut its connection, withdraw an open pairing'
complete -c customerctl -n "__customerctl_walk '' 0" -a token-create -d 'make a token, which lets its holder do some things'
complete -c customerctl -n "__customerctl_walk '' 0" -a token-list -d 'list all tokens that were made'
complete -c customerctl -n "__customerctl_walk '' 0" -a token-revoke -d 'end a token and all made from it, at once'
complete -c customerctl -n "__customerctl_walk '' 0" -a token-restrict -d 'print a token that allows less, made here from a token in a file'
complete -c customerctl -n "__customerctl_walk '' 0" -a getinfo -d 'show the state of the daemon'
complete -c customerctl -n "__customerctl_walk '' 0" -a metrics -d 'show figures in OpenMetrics text'
complete -c customerctl -n "__customerctl_walk '' 0" -a logs -d 'show the daemon’s lines in the journal, with journalctl'
complete -c customerctl -n "__customerctl_walk '' 0" -a reload -d 'read the configuration again, and apply what can change while the daemon runs'
complete -c customerctl -n "__customerctl_walk '' 0" -a stop -d 'end the daemon and its watcher'
complete -c customerctl -n "__customerctl_walk '' 0" -a rpc -d 'call any method with parameters in JSON'
complete -c customerctl -n "__customerctl_walk '' 0" -a help -d 'explain the commands'
complete -c customerctl -n '__customerctl_walk establish' -l deposit -x -d 'what to lock up, with its asset: "0.1 ETH"'
complete -c customerctl -n '__customerctl_walk establish' -l merchant-deposit -x -d 'what the merchant is to lock up, at first refundable'
complete -c customerctl -n '__customerctl_walk establish' -l label -x -d 'what to call the channel; otherwise the merchant’s host name'
complete -c customerctl -n '__customerctl_walk establish' -l note -x -d 'text for the merchant; - reads it from standard input'
complete -c customerctl -n '__customerctl_walk establish' -l no-wait -d 'return at once; the operation goes on in the daemon'
complete -c customerctl -n '__customerctl_walk establish' -l idempotency-key -x -d 'makes a repeat safe: the same key never does the same twice'
complete -c customerctl -n '__customerctl_walk show 0' -a '(__customerctl_ask list channels label)'
complete -c customerctl -n '__customerctl_walk rename 0' -a '(__customerctl_ask list channels label)'
complete -c customerctl -n '__customerctl_walk close 0' -a '(__customerctl_ask list channels label)'
complete -c customerctl -n '__customerctl_walk close' -l force -d 'close unilaterally, without asking the merchant'
complete -c customerctl -n '__customerctl_walk close' -l no-wait -d 'return at once; the operation goes on in the daemon'
complete -c customerctl -n '__customerctl_walk close' -l idempotency-key -x -d 'makes a repeat safe: the same key never does the same twice'
complete -c customerctl -n '__customerctl_walk pay 0' -a '(__customerctl_ask list channels label)'
complete -c customerctl -n '__customerctl_walk pay' -l note -x -d 'text for the merchant; - reads it from standard input'
complete -c customerctl -n '__customerctl_walk pay' -l no-wait -d 'return at once; the operation goes on in the daemon'
complete -c customerctl -n '__customerctl_walk pay' -l idempotency-key -x -d 'makes a repeat safe: the same key never does the same twice'
complete -c customerctl -n '__customerctl_walk refund 0' -a '(__customerctl_ask list channels label)'
complete -c customerctl -n '__customerctl_walk refund' -l note -x -d 'text for the merchant; - reads it from standard input'
complete -c customerctl -n '__customerctl_walk refund' -l no-wait -d 'return at once; the operation goes on in the daemon'
complete -c customerctl -n '__customerctl_walk refund' -l idempotency-key -x -d 'makes a repeat safe: the same key never does the same twice'
complete -c customerctl -n '__customerctl_walk estimate 0' -a 'close establish pay refund'
complete -c customerctl -n '__customerctl_walk estimate 1' -a '(__customerctl_ask list channels label)'
complete -c customerctl -n '__customerctl_walk estimate' -l force -d 'estimate a unilateral close'
complete -c customerctl -n '__customerctl_walk operations 0' -a '(__customerctl_ask list channels label)'
complete -c customerctl -n '__customerctl_walk operations' -l status -x -a 'cancelled done queued refused running' -d 'only operations with this status'
complete -c customerctl -n '__customerctl_walk operations' -l limit -x -d 'how many rows at the most'
complete -c customerctl -n '__customerctl_walk operation 0' -a '(__customerctl_ask operations operations id)'
complete -c customerctl -n '__customerctl_walk wait 0' -a '(__customerctl_ask operations operations id)'
complete -c customerctl -n '__customerctl_walk wait' -l timeout -x -d 'stop waiting after so many seconds; the operation goes on'
complete -c customerctl -n '__customerctl_walk cancel 0' -a '(__customerctl_ask operations operations id)'
complete -c customerctl -n '__customerctl_walk resume 0' -a '(__customerctl_ask operations operations id)'
complete -c customerctl -n '__customerctl_walk history 0' -a '(__customerctl_ask list channels label)'
complete -c customerctl -n '__customerctl_walk history' -l operation -x -a '(__customerctl_ask operations operations id)' -d 'only events of this operation'
complete -c customerctl -n '__customerctl_walk history' -l before -x -d 'only events with a smaller number'
complete -c customerctl -n '__customerctl_walk history' -l limit -x -d 'how many rows at the most'
complete -c customerctl -n '__customerctl_walk subscribe 0...' -a 'alarm chain channel log operation signer'
complete -c customerctl -n '__customerctl_walk subscribe' -l after -x -d 'begin after the event with this number; otherwise with what happens from now on'
complete -c customerctl -n '__customerctl_walk recover 0' -a '(__customerctl_ask list channels label)'
complete -c customerctl -n '__customerctl_walk recover' -l merchant -x -d 'look on the chain for channels with this merchant'
complete -c customerctl -n '__customerctl_walk recover' -l no-wait -d 'return at once; the operation goes on in the daemon'
complete -c customerctl -n '__customerctl_walk recover' -l timeout -x -d 'stop waiting after so many seconds; the recovery goes on'
complete -c customerctl -n '__customerctl_walk backup 0' -F
complete -c customerctl -n '__customerctl_walk restore 0' -F
complete -c customerctl -n '__customerctl_walk signer-pair' -l address -x -d 'where the signer finds this daemon, "host:port"; else as configured'
complete -c customerctl -n '__customerctl_walk signer-pair' -l expires -x -d 'seconds for which the pairing is open'
complete -c customerctl -n '__customerctl_walk signer-address' -l address -x -d 'where the signer finds this daemon, "host:port"; else as configured'
complete -c customerctl -n '__customerctl_walk token-create' -l method -x -a 'backup balance cancel close establish estimate getinfo help history list metrics operation operations pay recover refund reload rename restore resume rpc.discover show signer-address signer-forget signer-pair signer-status stop subscribe token-create token-list token-revoke wait' -d 'methods that it may call'
complete -c customerctl -n '__customerctl_walk token-create' -l expires -x -d 'how long it is valid: "12h", "30d"; else for ever'
complete -c customerctl -n '__customerctl_walk token-create' -l note -x -d 'what the token is for'
complete -c customerctl -n '__customerctl_walk token-create' -l channel -x -a '(__customerctl_ask list channels label)' -d 'channels that it may see and use; all when empty'
complete -c customerctl -n '__customerctl_walk token-create' -l rate -x -d 'how many calls: "10/s", "100/m"; else any number'
complete -c customerctl -n '__customerctl_walk token-create' -l spend -x -d 'what it may pay altogether: "0.1 ETH"; else nothing'
complete -c customerctl -n '__customerctl_walk token-restrict 0' -F
complete -c customerctl -n '__customerctl_walk token-restrict' -l method -x -a 'backup balance cancel close establish estimate getinfo help history list metrics operation operations pay recover refund reload rename restore resume rpc.discover show signer-address signer-forget signer-pair signer-status stop subscribe token-create token-list token-revoke wait' -d 'only these of its methods'
complete -c customerctl -n '__customerctl_walk token-restrict' -l channel -x -d 'only these channels, by id: show says it'
complete -c customerctl -n '__customerctl_walk token-restrict' -l expires -x -d 'only so long from now on: "1h", "30d"'
complete -c customerctl -n '__customerctl_walk token-restrict' -l rate -x -d 'only so many calls: "10/s", "100/m"'
complete -c customerctl -n '__customerctl_walk token-restrict' -l spend -x -d 'only so much of what it may pay: "0.01 ETH"'
complete -c customerctl -n '__customerctl_walk logs' -l channel -x -a '(__customerctl_ask list channels label)' -d 'only about this channel'
complete -c customerctl -n '__customerctl_walk logs' -l operation -x -a '(__customerctl_ask operations operations id)' -d 'only about this operation: its whole story'
complete -c customerctl -n '__customerctl_walk logs' -l since -x -d 'not older: "today", "1 hour ago", "2026-11-21 18:00"'
complete -c customerctl -n '__customerctl_walk logs' -l follow -d 'go on with what is written from now on'
complete -c customerctl -n '__customerctl_walk rpc 0' -a 'backup balance cancel close establish estimate getinfo help history list metrics operation operations pay recover refund reload rename restore resume rpc.discover show signer-address signer-forget signer-pair signer-status stop subscribe token-create token-list token-revoke wait'
complete -c customerctl -n '__customerctl_walk help 0' -a 'establish list show rename close pay refund balance estimate operations operation wait cancel resume history subscribe recover backup restore signer-status signer-pair signer-address signer-forget token-create token-list token-revoke token-restrict getinfo metrics logs reload stop rpc help'
