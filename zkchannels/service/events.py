"""The events an operator acts on: name, stable id, and what `journalctl -x` says about each.

One table for all programs. A line of the log at info or above has one of these names; its id is
in the field MESSAGE_ID and never changes, whatever happens to name or words.
"""

from __future__ import annotations

from typing import NamedTuple

_DAEMON = ("customerd",)
_SIGNER = ("customersigner",)
_MERCHANT = ("merchantd",)
_CHAIN = ("customerd", "merchantd")
_ALL = ("customerd", "customersigner", "merchantd")


class Event(NamedTuple):
    """One kind of line.

    `name` may have a variant behind a dot: "alarm_raised.guard_low". `identifier` is 128 bits in
    hexadecimal. In `words`, @FIELD@ stands for a field of the line.
    """

    name: str
    identifier: str
    programs: tuple[str, ...]
    subject: str
    words: str


EVENTS = (
    Event(
        "starting",
        "3c3270351ef74d6b98f692cfda773bc9",
        _DAEMON,
        "The daemon starts",
        "Version @VERSION@, process @PID@. It serves once PostgreSQL answers and the lease on "
        "its database is taken; the line `serving` says so.",
    ),
    Event(
        "serving",
        "c515a5514ad849b5908eec0490766957",
        _CHAIN,
        "The service answers",
        "Everything it needs to begin is there. What is still missing is in `systemctl "
        "status` and, for the daemon, in `customerctl getinfo`.",
    ),
    Event(
        "watcher_hung",
        "6628fb9c94b149339ba9b42cce9c2736",
        _DAEMON,
        "The watcher makes no progress",
        "The watchdog is not fed any more: systemd ends the daemon and starts it again, and "
        "operations go on at their step. Please report it, with the lines before this one.",
    ),
    Event(
        "connections_handed_over",
        "5166c6fe12b44affb662ff1b0b1c9557",
        _DAEMON,
        "Open connections were given to systemd to keep",
        "@COUNT@ of them; the next daemon goes on with them. Normal at a restart or an upgrade.",
    ),
    Event(
        "connections_taken_up",
        "25f9cc939cff4f6696054f61764f2d26",
        _DAEMON,
        "Open connections of the daemon before were taken up",
        "@COUNT@ of them; their clients notice nothing.",
    ),
    Event(
        "connections_dropped",
        "ac4430fee644497f815e7c7157a798aa",
        _DAEMON,
        "Open connections could not be taken up",
        "@COUNT@ of them were closed (@REASON@). Operations go on; clients connect again and ask.",
    ),
    Event(
        "calls_interrupted",
        "2e6b1c4f24dc467583f40033942d7d10",
        _DAEMON,
        "Calls were still at work when the daemon stopped",
        "Their operations go on at the next start, which also answers those who wait.",
    ),
    Event(
        "reloaded",
        "40fdfa39cae545d6af3c9e9e1828f225",
        _DAEMON,
        "The configuration was read again",
        "Changed at once: @APPLIED@. With the next start: @RESTART@.",
    ),
    Event(
        "not_reloaded",
        "f59dc7f5e9fb4f649ef7234f71dcfbdc",
        _DAEMON,
        "The configuration could not be read again",
        "@REASON@. Everything goes on as it was before; correct the file and reload once more.",
    ),
    Event(
        "secret_file_not_usable",
        "4b57f5453e174bffabdfb6df7555c72c",
        _DAEMON,
        "A file with a secret cannot be used",
        "@REASON@. The daemon does not start with it: correct the file's owner, mode or content.",
    ),
    Event(
        "link_certificate_not_usable",
        "9c8921336d9c43b0857a57759d6e3dd8",
        _DAEMON,
        "The certificate of the signer's socket cannot be used",
        "@REASON@. No signer can come over TLS until the file is back.",
    ),
    Event(
        "signer_let_go",
        "bcb2a4e91f45440fa8c003b50f5b4a2e",
        _DAEMON,
        "The signer was sent away, as this daemon does not act now",
        "@REASON@. The signer looks for the daemon that does.",
    ),
    Event(
        "daemon_stands_by",
        "ef1903cefcb4495c8018f0c5edc606f5",
        _SIGNER,
        "This daemon stands by",
        "@REASON@. The signer tries the other daemons that it knows, and this one again.",
    ),
    Event(
        "superseded",
        "a42f535bf87d4ac8899e48316ee97de6",
        _SIGNER,
        "Another signer of this wallet serves the daemon",
        "This one is turned away and keeps trying. Stop one of the two.",
    ),
    Event(
        "standing_by",
        "ab06305926ec4f8f86ae13285a779e8d",
        _DAEMON,
        "Another daemon holds this wallet; this one stands by",
        "The lease on the database is held by @HOLDER@. This daemon takes over by itself when "
        "the lease runs out or is given up. Nothing is to be done unless a second daemon was "
        "started by mistake.",
    ),
    Event(
        "stopping",
        "0bdac05efd63493db0a0660fbc9625fa",
        _CHAIN,
        "The service is being stopped",
        "What was written down is kept, and operations go on at the next start.",
    ),
    Event(
        "failed",
        "30f2bd77905d42b88c454b3ffab058d5",
        _DAEMON,
        "The daemon ended because of a fault",
        "The field EXCEPTION holds the traceback. systemd starts the daemon again, and "
        "operations go on at their step. Please report the traceback; it contains no secret.",
    ),
    Event(
        "waiting_for_database",
        "c85ed2941c9748f79691eefa06931297",
        _CHAIN,
        "PostgreSQL does not answer yet",
        "@REASON@. The service waits for as long as it takes and goes on by itself. See that "
        "PostgreSQL runs: systemctl status postgresql.",
    ),
    Event(
        "database_not_usable",
        "81c56749e67048eeb4a9527d2fb058ee",
        _DAEMON,
        "The database cannot be used",
        "@REASON@. It was written by a newer version, or it is not one of ours. Install the "
        "version that wrote it; do not change the tables by hand.",
    ),
    Event(
        "database_not_durable",
        "90f20ab1e23c454e884854d0677a06da",
        _CHAIN,
        "PostgreSQL does not promise to keep what it commits",
        "@REASON@. After a power failure commits may be missing. Set fsync and "
        "full_page_writes to on and synchronous_commit to on or stronger.",
    ),
    Event(
        "database_lost",
        "fcdff3a35282432e9e6216a6f8bc6998",
        _DAEMON,
        "The connection to PostgreSQL was lost",
        "@REASON@. Nothing is spent meanwhile; the chain is still followed. The daemon goes "
        "on by itself when PostgreSQL is back. See systemctl status postgresql, and df for a "
        "full disk.",
    ),
    Event(
        "database_back",
        "d8d9c42183864cd4b3a2f8a8a9241bfb",
        _DAEMON,
        "PostgreSQL is back",
        "The signer is compared and everything is read again, as the server may be a standby "
        "that lacks the last commits.",
    ),
    Event(
        "database_away",
        "85da8348188442ec8dbe8b746ed6d076",
        _MERCHANT,
        "The merchant lost its database",
        'It answers customers "later" until PostgreSQL is back.',
    ),
    Event(
        "lease_not_renewed",
        "5145c624b99f4068947a334ebd620582",
        _DAEMON,
        "The lease on the database could not be renewed",
        "@REASON@. If that lasts longer than the lease, another daemon may take over and this "
        "one ends.",
    ),
    Event(
        "lease_lost",
        "75e794f0fc86444882498192e048ebd3",
        _DAEMON,
        "Another daemon took this wallet over",
        "@REASON@. This daemon ends, because nothing it remembers may be trusted; systemd "
        "starts it again and it stands by. Two daemons on one database are fine; one that was "
        "suspended or cut off is how this happens.",
    ),
    Event(
        "connection_refused",
        "9ca56cbd78d642bda1e47c53a4a092aa",
        _ALL,
        "A connection was refused",
        "Somebody connected who may not: the peer @PEER@ with user id @PEER_UID@ (@REASON@). "
        "The owner's socket is for the daemon's own user and root only.",
    ),
    Event(
        "notification_refused",
        "11bd5c24dc7e413fbc65d7e2d9f33cc3",
        _ALL,
        "A client sent a request without an id",
        "It was not executed and the connection was closed: money must not move without an "
        "answer. Correct the client.",
    ),
    Event(
        "notification_failed",
        "85ddff0d130849599a5de53f1284c131",
        _ALL,
        "A notification from the other side could not be handled",
        "The field EXCEPTION holds the traceback. Please report it.",
    ),
    Event(
        "handler_failed",
        "cdd86ba427074746a7d3c18c3ac68a8c",
        _ALL,
        "A request could not be answered because of a fault of the program",
        "Method @METHOD@. The caller got an internal error. The field EXCEPTION holds the "
        "traceback. Please report it.",
    ),
    Event(
        "peer_babbles",
        "e96594e1730d4f6f878baf13d438bb41",
        _ALL,
        "A connection was cut that sent answers nobody had asked for",
        "@UNASKED@ of them, from the peer @PEER@.",
    ),
    Event(
        "peer_stalled",
        "92944323fe7a4f0abd61056af3d4c1d0",
        _ALL,
        "A connection was cut whose other side stopped reading",
        "The peer @PEER@ left @UNSENT@ bytes unread.",
    ),
    Event(
        "reader_too_slow",
        "24079ba55e1a419faddfc60cdc1f4382",
        _ALL,
        "A connection was cut whose other side reads too slowly",
        "The peer @PEER@ left @UNSENT@ bytes unread. A subscriber connects again and asks for "
        "what it missed with --after.",
    ),
    Event(
        "answer_malformed",
        "018216936a80432c941c57e2400e6998",
        _ALL,
        "A connection was cut whose other side sent what cannot be read",
        "@REASON@, from the peer @PEER@.",
    ),
    Event(
        "answer_unknown",
        "b917c1b4774046d8a1baa160d19f168d",
        _ALL,
        "The other side answered what was not asked",
        "One is harmless: the answer may have come after its time. The peer is @PEER@.",
    ),
    Event(
        "result_malformed",
        "99af2a997f3149f596eb049f297bc60c",
        _ALL,
        "The other side's answer is not of the agreed form",
        "Method @METHOD@: @REASON@. Are both sides of the same version?",
    ),
    Event(
        "connections_crowded",
        "e908e89540ac40078ec27dea98ecf092",
        _CHAIN,
        "The system allows no further connection",
        "@REASON@. Raise LimitNOFILE, or look for a client that opens too many.",
    ),
    Event(
        "operation_queued",
        "02d737306c2d4f7fb1eea2dd9a1daa12",
        _DAEMON,
        "An operation was queued",
        "A @METHOD@ on the channel @CHANNEL@. It is written down and will be carried out, "
        "also after a restart. Its whole story: customerctl logs --operation @OPERATION@",
    ),
    Event(
        "operation_taken_up",
        "e8cd679bc38749e9b51396044842c807",
        _DAEMON,
        "An operation goes on",
        "It was unfinished at a restart or an outage and is taken up at the step it had reached.",
    ),
    Event(
        "operation_done",
        "c256a7d53c234e638e1d9f4a25c579b3",
        _DAEMON,
        "An operation is done",
        "A @METHOD@ on the channel @CHANNEL@.",
    ),
    Event(
        "operation_refused",
        "57a0670e1a8f46539e9d6f16e47cfef3",
        _DAEMON,
        "An operation was refused",
        "Nothing was paid, opened or closed by it. The reason is of the kind @KIND@; "
        "customerctl operation @OPERATION@ has its words.",
    ),
    Event(
        "operation_cancelled",
        "6e287453ed7144c38229e7ac7fd80772",
        _DAEMON,
        "An operation was cancelled",
        "The owner did it, before anything was bound.",
    ),
    Event(
        "operation_rests",
        "85415400b7a24d82aaed1f853e11ffad",
        _DAEMON,
        "An operation was interrupted and will be tried again",
        "It rests at the step @STEP@ (@KIND@), loses nothing, and goes on by itself. "
        "customerctl operation @OPERATION@ says why. If it does not get on: customerctl close "
        "--force @CHANNEL@ ends the channel without it.",
    ),
    Event(
        "operation_held",
        "dbdd0c9c28f04f47893507162eee7bdd",
        _DAEMON,
        "An operation waits for your word",
        "The database or the signer went back in time, so it is not certain that the "
        "operation is still wanted. customerctl resume @OPERATION@ lets it go on, customerctl "
        "cancel @OPERATION@ ends it.",
    ),
    Event(
        "operation_failed",
        "37d6b0449fe149da9b94d93e63675f45",
        _DAEMON,
        "An operation met a fault of the program",
        "It is tried again at its step. The field EXCEPTION holds the traceback. Please report it.",
    ),
    Event(
        "mutual_close_failed",
        "7ebd05b3c9f24b5297dc06d7cacc4134",
        _DAEMON,
        "The merchant did not agree to close",
        "The channel @CHANNEL@ is closed unilaterally instead (@KIND@): the money comes after "
        "the escrow's delay.",
    ),
    Event(
        "merchant_denies_a_bound_payment",
        "6b398eb2f72f4ee9a634e7398cf56262",
        _DAEMON,
        "The merchant denies a payment that it had signed for",
        "The channel @CHANNEL@ is being closed on the state that counts for you. Keep this "
        "journal: it is what you can show the merchant.",
    ),
    Event(
        "nonce_bound_to_other_commitments",
        "d3900ece6a474b72992edfeb697c03a3",
        _DAEMON,
        "The merchant knows another payment from this state",
        "The channel @CHANNEL@ is suspect: this database or the merchant's went back in time. "
        "Nothing is paid on it until it is recovered, which begins by itself; see customerctl "
        "show @CHANNEL@.",
    ),
    Event(
        "authorization_does_not_verify",
        "07996ce082c54514b7cdb6f64341d2b8",
        _DAEMON,
        "The merchant sent a closing authorization that does not verify",
        "Nothing was paid; the channel @CHANNEL@ is being closed on its last good state.",
    ),
    Event(
        "revocation_refused",
        "28f197f3c2274925acdecdc7e7557628",
        _DAEMON,
        "The merchant refused a correct revocation",
        "The channel @CHANNEL@ is being closed (@KIND@).",
    ),
    Event(
        "pay_token_does_not_verify",
        "4856d5f4cc3e456abf14341b02bdbbc0",
        _DAEMON,
        "The merchant sent a pay token that does not verify",
        "The payment counts; the channel @CHANNEL@ cannot pay again and is being closed.",
    ),
    Event(
        "signer_refuses",
        "098a67c7874843fc9e5b0f6a0487ef29",
        _DAEMON,
        "The signer refuses a step",
        "@KIND@. customersigner's journal and customerctl operation @OPERATION@ have the words.",
    ),
    Event(
        "channel_closed",
        "f9e63423b9734ce4bd16d5936afd3aae",
        _DAEMON,
        "A channel has ended",
        "The end of @CHANNEL@ is final on chain. customerctl show @CHANNEL@ has what was paid out.",
    ),
    Event(
        "channel_reopened",
        "5f180bc968874313baf2bdf099344f72",
        _DAEMON,
        "The recorded end of a channel is not on the chain any more",
        "The chain replaced final blocks. The channel @CHANNEL@ is defended again.",
    ),
    Event(
        "channel_found",
        "574ebdc5429541fb92e6f53ef67bfc0e",
        _DAEMON,
        "A channel was found on the chain",
        "@CHANNEL@ belongs to this wallet and was not in the database. customerctl recover "
        "@CHANNEL@ asks the merchant for its newest state.",
    ),
    Event(
        "channel_recovered",
        "3ad9cd357cb147b2ab9b835af9480b3e",
        _DAEMON,
        "A channel was recovered",
        "@CHANNEL@ is at the newest state that the merchant knows.",
    ),
    Event(
        "state_recovered",
        "4685743e054b47f1b417b5c2bb2f2373",
        _DAEMON,
        "A state of a channel was recovered",
        "Recovery walks forward one payment at a time.",
    ),
    Event(
        "channel_not_understood",
        "3720b395cdc44186aad55ec5603cb79e",
        _DAEMON,
        "A channel found on the chain could not be read",
        "It is not defended. Please report it.",
    ),
    Event(
        "record_does_not_fit",
        "1d3cc746e00e438ea811ede620b2ea88",
        _DAEMON,
        "What the merchant says about a channel does not fit",
        "Recovery of @CHANNEL@ goes on asking (@KIND@): a merchant that lies leads nowhere.",
    ),
    Event(
        "refused_payment_was_bound",
        "c7e9765ba68b42b886580b295bed8633",
        _DAEMON,
        "A payment that the merchant had refused was bound after all",
        "It is entered as paid on @CHANNEL@, as recovery found it.",
    ),
    Event(
        "backup_written",
        "bb962c08688e4d0792b830b5d6626d01",
        _DAEMON,
        "A backup was written",
        "It holds @CHANNELS@ channels and no key of the wallet.",
    ),
    Event(
        "backup_restored",
        "ebbe41605c0843f3b2f391cdb8a015e3",
        _DAEMON,
        "A backup was restored",
        "@CHANNELS@ channels. They are suspect until the merchant confirms them: customerctl "
        "recover.",
    ),
    Event(
        "backup_not_written",
        "ac8f0510b50846e9a95d6ff203eb8e20",
        _DAEMON,
        "The continuous backup is behind",
        "@REASON@. Payments go on. See that the directory of [backup] exists, is writable for "
        "the daemon and has room.",
    ),
    Event(
        "signer_attached",
        "6c2d14f991774ef781d4783f8d5b53e5",
        _DAEMON,
        "The signer is attached",
        "The daemon can spend once it has compared its records with the signer's.",
    ),
    Event(
        "signer_lost",
        "952655d925c245509256a35448bfdc6d",
        _DAEMON,
        "The signer is gone: safe mode",
        "Nothing is spent; every channel is still watched and defended by the guard. Start "
        "the signer or its device; interrupted operations go on by themselves.",
    ),
    Event(
        "signer_taken_over",
        "d839d63acd114734a708cb69e1def3da",
        _DAEMON,
        "A newer connection of the same signer replaced the older one",
        "Normal after a change of network. If it repeats, two signers of one wallet are "
        "running: stop one.",
    ),
    Event(
        "signer_cut",
        "52a2c120ac444677ac4df80f059ca909",
        _DAEMON,
        "A signer was cut off that is not paired any more",
        "Pair it again if it is yours: customerctl signer-pair.",
    ),
    Event(
        "signer_refused",
        "f8ce41caa3674431b4e62c7521128f8b",
        _DAEMON,
        "Somebody posed as the signer",
        "Refused: @REASON@. A signer of another wallet, or an attack. The identity it showed "
        "is @IDENTITY@.",
    ),
    Event(
        "signer_not_compared",
        "55a76d0d29cf4f35a9043dfad103d925",
        _DAEMON,
        "The records of daemon and signer could not be compared",
        "@REASON@. It is tried again when the signer dials; until then nothing is spent.",
    ),
    Event(
        "signer_fast_forwarded",
        "0bd180f480f34370a4fecd6e8329b462",
        _DAEMON,
        "The signer was behind and has caught up",
        "It took the newest authorization of @CHANNEL@ from the database, which it verified.",
    ),
    Event(
        "signer_is_ahead",
        "80cd3a7bcbf041e4b182530beb8145b0",
        _DAEMON,
        "The signer knew more than the database",
        "The payment in flight on @CHANNEL@ was taken over from it.",
    ),
    Event(
        "signer_event_lost",
        "e948a2465a13424c88e182fe5ed85807",
        _DAEMON,
        "A message of the signer's state could not be recorded",
        "PostgreSQL was away; getinfo shows the truth.",
    ),
    Event(
        "signer_paired",
        "0c42eaa4a8ba4e68acb8da044511945c",
        _DAEMON,
        "A signer was paired",
        "From now on only the device with the identity @IDENTITY@ may attach over TLS. If "
        "that was not you: customerctl signer-forget.",
    ),
    Event(
        "pairing_refused",
        "496cae551dfa449da85a87b7fa5346b1",
        _DAEMON,
        "Somebody tried to pair with a wrong secret",
        "From @SOURCE@. The offer stands until it expires; customerctl signer-forget withdraws it.",
    ),
    Event(
        "newcomer_cut",
        "8f231a31d2834fc0be063cfa0c22fd43",
        _DAEMON,
        "A connection to the signer's socket was cut",
        "It did not prove who it is in time.",
    ),
    Event(
        "link_certificate",
        "3212f3ddd0df4137bc2c629c49e40afe",
        _DAEMON,
        "The certificate of the signer's socket",
        "Its SHA-256 is @SHA256@. A paired signer has it pinned.",
    ),
    Event(
        "monitor_certificate",
        "7f09cb5da3c24f72af65f3b7a2a099e2",
        _DAEMON,
        "The certificate of the monitor socket",
        "Its SHA-256 is @SHA256@: what --socket tls://HOST:PORT#SHA256 takes.",
    ),
    Event(
        "token_refused",
        "c8fe8757197e417fb8bc75546c3fb655",
        _DAEMON,
        "A token was refused",
        "@REASON@. The holder may have an old one: customerctl token-list shows those that "
        "are valid.",
    ),
    Event(
        "token_ended",
        "407c4518967b4536bd064b1c515b9766",
        _DAEMON,
        "A connection was ended because its token is not valid any more",
        "@REASON@.",
    ),
    Event(
        "escrow_not_registered",
        "e62caeb9fe9c4c83868aa8fe53a68a25",
        _DAEMON,
        "The signer does not accept an escrow",
        "@REASON@. Channels in it cannot pay.",
    ),
    Event(
        "channel_missing_from_database",
        "c2f94496d8b94094a1e029a211381601",
        _DAEMON,
        "The signer knows a channel that the database does not",
        "It is not defended. Restore a backup (customerctl restore), or find it on the chain "
        "(customerctl recover --merchant).",
    ),
    Event(
        "channel_not_compared",
        "1c094a622d7849e899db324a3610288d",
        _DAEMON,
        "A channel could not be compared with the signer",
        "@CHANNEL@: @REASON@. It pays nothing until that succeeds.",
    ),
    Event(
        "database_went_back",
        "5c7d3d09be674ec7a942ab8dd9854e84",
        _DAEMON,
        "The database is older than the signer",
        "The channel @CHANNEL@ took the signer's newest state and is being recovered; queued "
        "operations wait for customerctl resume.",
    ),
    Event(
        "permit_renewed",
        "33d88fc4481440fc9c781b230ad35b03",
        _DAEMON,
        "The guard's permit was renewed",
        "The signer signed one for the guard account of now, for @CHANNEL@.",
    ),
    Event(
        "close_was_forgotten",
        "d7f5bc2cab724c2a932a2b94774d09cb",
        _DAEMON,
        "The signer had signed a close that the database forgot",
        "The channel @CHANNEL@ is closed as was decided.",
    ),
    Event(
        "alarm_cleared",
        "c5c32afdd5894ae8baee7a87240fb753",
        _DAEMON,
        "An alarm is over",
        "@ALARM@ on @CHANNEL@ holds no more.",
    ),
    Event(
        "alarm_raised.deadline_half",
        "0778437a48b9435ea1125c72f585edc1",
        _DAEMON,
        "Half of the time to act on chain is gone",
        "@REASON@ (channel @CHANNEL@). The daemon tries all the time; something keeps it "
        "back: look at customerctl getinfo, the guard's balance, the node, the signer.",
    ),
    Event(
        "alarm_raised.deadline_tenth",
        "da4bc4def2434c099ffa92ad8cccfc7a",
        _DAEMON,
        "Money is lost soon: a tenth of the time to act on chain is left",
        "@REASON@ (channel @CHANNEL@). Attach the signer, fill the guard's account, see that "
        "a node answers. Do it now.",
    ),
    Event(
        "alarm_raised.chain_not_followed",
        "99230380dcd949f2957555b1375b16af",
        _DAEMON,
        "The chain is not followed",
        "@REASON@. See that the nodes of [chain] endpoints answer, or add one and restart the "
        "daemon. Payments wait.",
    ),
    Event(
        "alarm_raised.blind_half",
        "a210dd2224d141069c5757d6be1039c3",
        _DAEMON,
        "The chain has not been seen for too long",
        "@REASON@. A merchant could be closing a channel unseen. Bring a node back, or add "
        "another to [chain] endpoints.",
    ),
    Event(
        "alarm_raised.blind_tenth",
        "4959c4c19ed143a0a60073434aafb316",
        _DAEMON,
        "The chain has been unseen almost as long as an attack takes",
        "@REASON@. Bring a node back at once.",
    ),
    Event(
        "alarm_raised.nodes_disagree",
        "99c1988f38a24c6d8ac6b56480109833",
        _DAEMON,
        "The configured nodes are on different chains",
        "@REASON@. One of them is wrong or cut off; the majority is followed. Remove it from "
        "[chain] endpoints.",
    ),
    Event(
        "alarm_raised.finality_broken",
        "770ab60e22dd4acfb8d27a323bf1dd84",
        _DAEMON,
        "The chain replaced blocks that were final",
        "@REASON@.",
    ),
    Event(
        "alarm_raised.alarm",
        "96684acec32e4545b404058f708d6c34",
        _DAEMON,
        "A channel is in a state that the protocol excludes",
        "@REASON@ (channel @CHANNEL@). docs/watcher.md explains the row; keep the journal and "
        "the database as they are.",
    ),
    Event(
        "alarm_raised.not_reconciled",
        "0f3c355a9a7a4fa88ad4aa9e7031e385",
        _DAEMON,
        "Nothing can be decided about a channel",
        "@REASON@. It is not defended. If the node does not keep old events, configure one "
        "that does.",
    ),
    Event(
        "alarm_raised.wait-for-signer",
        "02df606cd31f41769aad4e611f7a1e95",
        _DAEMON,
        "A channel waits for the signer",
        "@REASON@ (channel @CHANNEL@). Start the signer.",
    ),
    Event(
        "alarm_raised.ask-merchant",
        "277ac676879f4b3bad42bc5fda69f144",
        _DAEMON,
        "A channel is suspect",
        "@REASON@ (channel @CHANNEL@). Recovery asks the merchant; customerctl recover "
        "@CHANNEL@ shows how it stands.",
    ),
    Event(
        "alarm_raised.action_failed",
        "c62f2011a5cf4c149cc0b0b728c16b04",
        _DAEMON,
        "What has to be done on the chain could not be done",
        "@REASON@ (channel @CHANNEL@). It is tried again.",
    ),
    Event(
        "alarm_raised.fee_cap",
        "ae000403e3a64b03a8ab3d480d70fe7a",
        _DAEMON,
        "A transaction needs more than the fee cap",
        "@REASON@. Raise [chain] fee_cap and reload (systemctl reload customerd), or wait for "
        "lower fees.",
    ),
    Event(
        "alarm_raised.transaction_stuck",
        "8d1cab59541242148c625b2b688e3f04",
        _DAEMON,
        "A transaction does not get into the chain",
        "@REASON@. Usually an account is empty: customerctl getinfo shows both.",
    ),
    Event(
        "alarm_raised.guard_empty",
        "2ca61a3dc41141d2bf35197e50c5a35e",
        _DAEMON,
        "The guard's account is empty",
        "Nothing can be defended while the signer is away. Send some coin to the guard's "
        "address, which customerctl getinfo shows.",
    ),
    Event(
        "alarm_raised.guard_low",
        "a1575d1e69644f00bb600947934e8fda",
        _DAEMON,
        "The guard's account is low",
        "It cannot pay for defending every channel at today's fees. Send some coin to the "
        "guard's address, which customerctl getinfo shows.",
    ),
    Event(
        "alarm_raised.operation_rests",
        "d6d41cc8a4534239af88aa75ec7bf737",
        _DAEMON,
        "An operation does not get on",
        "It was interrupted twice or more. customerctl getinfo and customerctl operation have "
        "the reason; customerctl close --force @CHANNEL@ ends the channel without it.",
    ),
    Event(
        "alarm_raised.channel_missing",
        "c177642888864a40b655d778302c4dc7",
        _DAEMON,
        "A channel of this wallet is not in the database",
        "@REASON@. customerctl restore, or customerctl recover --merchant.",
    ),
    Event(
        "alarm_raised.two_signers",
        "450da5579b0cc737004012e609624361",
        _DAEMON,
        "Two signers of one wallet are running",
        "The one that came later serves, the other is turned away and keeps trying. Stop one; "
        "`two_signers` clears two minutes after its last try.",
    ),
    Event(
        "another_chain",
        "047593b7d11f4ec280c6b45dae450a11",
        _DAEMON,
        "A node is on another chain than the records",
        "@REASON@. Correct [chain] endpoints.",
    ),
    Event(
        "lane_rests",
        "c30da1abb4284369829731ae7ad0089b",
        _DAEMON,
        "Transactions wait for the node or the database",
        "@REASON@. They are sent when both are back.",
    ),
    Event(
        "reconcile_rests",
        "6d70bcbd6ba9443f879a9703f7e0ea22",
        _DAEMON,
        "A channel could not be looked after just now",
        "@REASON@. It is tried again within seconds.",
    ),
    Event(
        "reconcile_failed",
        "79cc6d2c8f7c4478ac9664fc479d844c",
        _DAEMON,
        "A fault of the program keeps a channel from being looked after",
        "It is tried again within seconds. The field EXCEPTION holds the traceback. Please "
        "report it.",
    ),
    Event(
        "signer_refuses_transaction",
        "829af764cead4241b24627e66475544e",
        _DAEMON,
        "The signer refuses to sign a transaction",
        "@REASON@.",
    ),
    Event(
        "signer_refuses_permit",
        "e517fbe058bd428eb8cc72c1c8e65749",
        _DAEMON,
        "The signer refuses to sign a token's permit",
        "@REASON@. The deposit is approved by a transaction instead.",
    ),
    Event(
        "chain_followed",
        "0933243b72fd44ba8c99780188fa0d43",
        _CHAIN,
        "The chain is followed again",
        "Head @HEAD@.",
    ),
    Event(
        "chain_not_followed",
        "bade40fca9124fcd8b9562c7ea9d57b0",
        _CHAIN,
        "The chain cannot be followed just now",
        "@REASON@. Every configured node is tried again and again.",
    ),
    Event(
        "chain_polled",
        "a0539ee94fe84c4695434efdef8b09e0",
        _CHAIN,
        "The chain is polled",
        "A node offers no WebSocket (@REASON@); new blocks are seen some seconds later.",
    ),
    Event(
        "chain_read_afresh",
        "34f5c9de672541bc90630a5171a5ffe7",
        _CHAIN,
        "The chain is read again from the beginning",
        "What was remembered of it does not fit any more.",
    ),
    Event(
        "chain_reorganised",
        "422b4aef9c2646bd806e31c76265dcfe",
        _CHAIN,
        "The chain was reorganised",
        "@DEPTH@ blocks were replaced after block @BLOCK@. Normal; nothing that counts was "
        "decided on them.",
    ),
    Event(
        "final_blocks_reorganised",
        "7d1ac3ffb0f94bec8e642c2f3ca345ae",
        _CHAIN,
        "Final blocks were replaced",
        "@DEPTH@ blocks after block @BLOCK@. That is not supposed to happen: see the nodes.",
    ),
    Event(
        "nodes_disagree",
        "9e8d769f93d04df1b95f09e416b13ce6",
        _CHAIN,
        "The configured nodes are on different chains",
        "@REASON@.",
    ),
    Event(
        "nodes_agree",
        "215c2e9f49cf42b8bcd7a5f5defeb09a",
        _CHAIN,
        "The configured nodes are on the same chain again",
        "Nothing is to be done.",
    ),
    Event(
        "transaction_pending",
        "0a9517a335f646a1925f309a13a3fa62",
        _CHAIN,
        "A transaction was sent, or fell out of its block",
        "@PURPOSE@ is @TX@. It is sent again at every block until it is final.",
    ),
    Event(
        "transaction_included",
        "560b525eb97d47e8bd3139697c45b946",
        _CHAIN,
        "A transaction is in a block",
        "@PURPOSE@ is @TX@, in block @BLOCK@.",
    ),
    Event(
        "transaction_final",
        "b5ef0e47df6c4f39b24782f7566398db",
        _CHAIN,
        "A transaction is final",
        "@PURPOSE@ is @TX@, in block @BLOCK@.",
    ),
    Event(
        "transaction_failed",
        "da9b09ef3795457abbbd0ebd949d5792",
        _CHAIN,
        "A transaction failed on the chain",
        "@PURPOSE@ is @TX@: @REASON@. If its purpose still holds it is sent anew.",
    ),
    Event(
        "transaction_waits",
        "4b8310f0302d4250859754bfced0e5ee",
        _CHAIN,
        "A transaction does not get out",
        "@PURPOSE@: @TROUBLE@ (@REASON@).",
    ),
    Event(
        "transactions_wait",
        "d132d585d2d846d38646f6e71d8362e8",
        _CHAIN,
        "Transactions wait for the node",
        "@REASON@.",
    ),
    Event(
        "fees_raised",
        "cf5e1780bfd74029a41f67060f1f3896",
        _CHAIN,
        "A transaction's fees were raised",
        "@PURPOSE@, as it was not taken in time.",
    ),
    Event(
        "nonce_used_by_stranger",
        "deaee66223c4411e9279435c3eae5797",
        _CHAIN,
        "Somebody else uses one of our accounts",
        "A nonce of the account was used by another program, and @PURPOSE@ was signed anew. "
        "Let nothing else use the wallet's or the guard's key.",
    ),
    Event(
        "nonce_gap_stays",
        "8e80a2877f314be387e071372d7a838c",
        _CHAIN,
        "A missing nonce cannot be filled",
        "@REASON@. Transactions behind it wait.",
    ),
    Event(
        "log_lines_dropped",
        "c34c4d46ed294127b1d80171498104e1",
        _ALL,
        "Lines of the log could not be written",
        "@COUNT@ lines are missing here, as the reader of the log did not keep up.",
    ),
    Event(
        "log_lines_suppressed",
        "d0d174fb19684577a0a938eefc335622",
        _ALL,
        "Lines of the log were left out",
        "@COUNT@ lines of the kind @ABOUT@ came too fast, as a flood of bad requests makes them.",
    ),
    Event(
        "started",
        "2e5abcb9eb784dcf9b06bde19da936bd",
        _SIGNER,
        "The signer is running",
        "It dials the daemon until it is stopped.",
    ),
    Event(
        "stopped",
        "1e019be9eec6406dabc53ad75a1c16d2",
        _SIGNER,
        "The signer has ended",
        "The daemon is in safe mode until it is back.",
    ),
    Event(
        "request_refused",
        "885f97537bdf4479a7d51ee9c501f654",
        _SIGNER,
        "The signer refused a request of its daemon",
        "The method @METHOD@, for the reason @KIND@. customerctl operation @OPERATION@ has the "
        "words. A policy is changed in policy.toml; anything else protects the money.",
    ),
    Event(
        "attached",
        "9560a816e4ec4b23ac690280a58e0f65",
        _SIGNER,
        "The signer is attached to its daemon",
        "It answers the daemon's requests from now on.",
    ),
    Event(
        "link_lost",
        "1fd5a75c7de540668a519edade0241d3",
        _SIGNER,
        "The connection to the daemon ended",
        "@REASON@. It is dialled again.",
    ),
    Event(
        "daemon_silent",
        "e4e59261d0ad4f8f880f2f6cfec78002",
        _SIGNER,
        "The daemon said nothing for too long",
        "The connection is given up after @SECONDS@ s and dialled again.",
    ),
    Event(
        "daemon_not_reached",
        "2199f27996b44db8baac3abc58c6cad3",
        _SIGNER,
        "The daemon could not be reached",
        "@REASON@. It is dialled again and again. See that customerd runs, and that the "
        "address is right.",
    ),
    Event(
        "daemon_not_trusted",
        "da4151f68ea146dc83f80e687308e4b2",
        _SIGNER,
        "Somebody poses as the daemon",
        "It shows another certificate than was pinned: @REASON@. Nothing was sent to it. If "
        "the daemon was set up anew, pair again.",
    ),
    Event(
        "daemon_refused",
        "46eb4b4df106471cae0975af727d5afa",
        _SIGNER,
        "The daemon refused this signer",
        "@REASON@ (@KIND@). A signer serves the wallet it was made for.",
    ),
    Event(
        "daemon_hung_up",
        "89cdac6fd1a04e7a8c18a6d2df762845",
        _SIGNER,
        "The daemon hung up during the introduction",
        "It does not know this signer's certificate any more: pair again.",
    ),
    Event(
        "pairing_unusable",
        "cab19b41247e4865ad8615b0db683a77",
        _SIGNER,
        "The pairing cannot be used",
        "@REASON@.",
    ),
    Event(
        "store_unavailable",
        "5c6057b2c5f94e02ad6723b14c18f500",
        _SIGNER,
        "The signer's store cannot be written",
        "@REASON@. Nothing is signed meanwhile. Look for a full disk.",
    ),
    Event(
        "confirmation_socket_unusable",
        "32f7d94a19074476b7b0fff7018e19dd",
        _SIGNER,
        "Questions cannot be answered on this machine",
        "@REASON@. Payments above the limit that needs a person are refused.",
    ),
    Event(
        "policy_reloaded",
        "ed712a20edd14d8dbdc8f2e501a30b99",
        _SIGNER,
        "The signer's policies were read again",
        "They hold for the next request: @POLICIES@.",
    ),
    Event(
        "policy_not_reloaded",
        "ef42026b821d4d449093e54291265015",
        _SIGNER,
        "The signer's policies could not be read again",
        "@REASON@. The old ones hold.",
    ),
    Event(
        "channel_established",
        "5d633676309b47778741c35725aeeeb1",
        _MERCHANT,
        "A channel was agreed on",
        "The customer may fund it now.",
    ),
    Event(
        "channel_activated",
        "70a46382e8a74e53a51a48a4e4aaf3c3",
        _MERCHANT,
        "A channel was activated",
        "Its funding is final and its first pay token was given.",
    ),
    Event(
        "channel_ended",
        "06006b1e8207441dbddbd7e4af2a3962",
        _MERCHANT,
        "A channel has ended on the chain",
        "Outcome: @OUTCOME@.",
    ),
    Event(
        "mutual_close_agreed",
        "4a50f7bc411241ea8e87999ed3b386ca",
        _MERCHANT,
        "A close was agreed on",
        "The customer sends it to the chain.",
    ),
    Event(
        "payment_from_closed_channel_refused",
        "86bf6c2226fb448f8db9c190130c5658",
        _MERCHANT,
        "A payment from a channel that ends was refused",
        "A customer used a state whose close is on the chain. The attempt cost nothing.",
    ),
    Event(
        "service_note_unavailable",
        "887d8aeae9194f1c83dc701986d7717f",
        _MERCHANT,
        "The service that writes receipts does not answer",
        "@REASON@. The payment stands; its note comes later or not.",
    ),
    Event(
        "approver_unavailable",
        "d426b61d85034d48812f53886746077f",
        _MERCHANT,
        "The approval service does not answer",
        "@REASON@. Customers are told to come later.",
    ),
    Event(
        "approval_service_told_later",
        "b334ed1058214fe895bfc3b3ec60f95d",
        _MERCHANT,
        "The approval service will be told later",
        "@REASON@.",
    ),
    Event(
        "records_went_back",
        "7effc59ad8a8483c8077499f76175535",
        _MERCHANT,
        "The merchant's database is older than its witness",
        "@REASON@. Nothing new is signed until all later records are back: restore the newest "
        "backup.",
    ),
    Event(
        "witness_not_written",
        "ef0042d7f73a4c78a55bfafc999f7f57",
        _MERCHANT,
        "The witness of the newest record could not be written",
        "@REASON@.",
    ),
    Event(
        "action_tried_again",
        "ed181be51db449aa8a7b7502d4f4ffdf",
        _MERCHANT,
        "What has to be done on the chain is tried again",
        "@ACTION@: @REASON@.",
    ),
    Event(
        "watcher_held_up",
        "fbb62df05a584836a151e17b7ddb3131",
        _MERCHANT,
        "The merchant's watcher waits",
        "@REASON@.",
    ),
    Event(
        "channel_not_explained_by_records",
        "b886883fe9454f42ad4586acbc5d13bd",
        _MERCHANT,
        "The chain shows what the merchant's records do not explain",
        "Status @STATUS@. Keep the database as it is; a backup may be missing.",
    ),
    Event(
        "idle_connections_ended",
        "570591859e7b443eabde4e54908d2211",
        _MERCHANT,
        "Idle connections were ended to make room",
        "@COUNT@ of them.",
    ),
)
"""A new event gets an id of its own: journalctl --new-id128."""

_IDENTIFIERS = {event.name: event.identifier for event in EVENTS}


def identifier(name: str, variant: str = "") -> str | None:
    """Return the id of an event, or of its variant where it has one; None for any other line."""
    return _IDENTIFIERS.get(f"{name}.{variant}") or _IDENTIFIERS.get(name)
