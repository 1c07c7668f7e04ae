"""Which test meets the counterexample of each rule with real processes, or why none does."""

from __future__ import annotations

_HERE = "model/test_replay.py::"
_CRASHES = ("fault/test_faults.py::test_every_crash_point_is_survived",)
_CUTS = ("fault/test_faults.py::test_every_cut_is_survived",)
_MIDDLE = (
    f"{_HERE}test_the_guard_closes_in_the_middle_of_a_payment_and_the_signer_returns",
    f"{_HERE}test_a_daemon_dead_before_the_secret_leaves_closes_on_the_new_state",
)
_FORGOTTEN = (f"{_HERE}test_a_close_that_an_old_database_forgot_is_remembered",)
_DECIDED = (f"{_HERE}test_a_decision_to_close_outlives_the_daemon",)
_OLD = (f"{_HERE}test_an_old_database_closes_on_the_signers_newest_state",)
_FIRST = (f"{_HERE}test_an_old_database_takes_the_first_authorization_from_the_signer",)
_THIEF = (f"{_HERE}test_a_stale_close_with_the_stolen_guard_is_disputed",)
_BOTH = ("recovery/test_went_back.py::test_both_old_unflagged",)
_PAY = "merchantd/test_pay.py::"
_CHAIN = "merchantd/test_chain.py::"
_CONTRACT = "contract/test_closing.py::"
_OPENING = "contract/test_opening.py::"
_STATUSES = "contract/test_statuses.py::test_only_the_calls_of_the_table_are_possible"
_LANE = "chain/test_lane.py::"
_LEASE = (
    "postgres/test_two_daemons.py::test_kill_and_takeover",
    "postgres/test_two_daemons.py::test_a_daemon_that_slept_moves_nothing",
)

REPLAYS: dict[str, tuple[str, ...]] = {
    "ca0-before-open": (*_CRASHES, *_FIRST),
    "prove-before-send+adopt": _CRASHES,
    "ca-before-secret": _MIDDLE,
    "close-newest": _MIDDLE,
    "close-new+secret-before-send": _MIDDLE,
    "decide-before-close": (*_DECIDED, *_FORGOTTEN),
    "close-stops-pay": (*_MIDDLE, *_DECIDED),
    "open-only": _MIDDLE,
    "close-final": (*_DECIDED, f"{_PAY}test_mutual_close_burns_the_state"),
    "done-with-index": _CRASHES,
    "compare": (*_OLD, *_FORGOTTEN),
    "adopt-first": _FIRST,
    "signer-copy": _OLD,
    "signer-counter": _CRASHES,
    "adopt": (*_OLD, "recovery/test_went_back.py::test_an_old_database_is_caught_up_and_pays_on"),
    "operation-once": _CRASHES,
    "signs": _FORGOTTEN,
    "signer-refuses": _OLD,
    "verify-ca": ("signer/test_signer.py::test_a_secret_waits_for_a_signature_that_verifies",),
    "guard": _MIDDLE,
    "guard-expiring": _THIEF,
    "permit": (f"{_CONTRACT}test_a_permit_covers_everything",),
    "void": (*_THIEF, f"{_CONTRACT}test_a_disputed_guards_close_is_void"),
    "own-dispute": _THIEF,
    "own-close-stands": _MIDDLE,
    "wait-half": _MIDDLE,
    "suspect": _BOTH,
    "nonce-before-ca": ("merchantd/test_crash.py::test_written_answers_survive_a_kill",),
    "written-is-given": (f"{_PAY}test_nonce_is_bound_to_its_first_commitments",),
    "mutual-lock": (f"{_PAY}test_mutual_close_burns_the_state",),
    "mutual-asked": (
        "thief/test_database.py::test_only_the_customer_can_ask_to_close_by_agreement",
    ),
    "chain-lock": (f"{_CHAIN}test_closed_state_pays_no_more",),
    "lock-before-token": (
        "merchantd/test_crash.py::test_written_answers_survive_a_kill",
        "merchantd/test_crash.py::test_secret_in_an_interrupted_answer_disputes",
    ),
    "session-once": (f"{_PAY}test_session_serves_one_nonce",),
    "refusal-durable": (f"{_PAY}test_bad_proof_is_final_for_its_commitments",),
    "repeat-ca": (f"{_PAY}test_every_repeat_is_answered_alike", *_CUTS),
    "repeat-token": (f"{_PAY}test_every_repeat_is_answered_alike", *_CUTS),
    "final-before-token": (f"{_CHAIN}test_first_token_waits_for_finality",),
    "margin": ("chainfaults/test_reorganisations.py::test_a_life_with_reorganisations",),
    "watch-until-claimed": (f"{_CONTRACT}test_a_dispute_is_possible_until_somebody_claims",),
    "record-final": (
        "chainfaults/test_reorganisations.py::test_a_final_end_is_taken_back",
        "merchantd/test_decisions.py::test_records_an_end_only_when_final",
    ),
    "fresh-deadline": (f"{_CONTRACT}test_a_late_close_has_a_fresh_deadline",),
    "defend-once": (f"{_CONTRACT}test_the_guard_is_struck_off_whoever_the_next_permit_names",),
    "late-dispute": _THIEF,
    "fund-terms+fund-final": (f"{_OPENING}test_fund_names_the_terms",),
    "fund-terms+id-once": (
        f"{_OPENING}test_fund_names_the_terms",
        "contract/test_statuses.py::test_an_id_is_opened_once_whatever_the_terms",
    ),
    "token-after-fund": (f"{_CHAIN}test_merchant_funds_what_it_agreed_to",),
    "close-awaiting": (_STATUSES,),
    "expire-awaiting": (_STATUSES,),
    "reclaim": (f"{_OPENING}test_reclaim_returns_the_deposit_after_the_deadline",),
    "lease-expires": _LEASE,
    "lease-fence+ended-once": _LEASE,
    "ended-once": ("flow/test_cancelling.py::test_what_ended_cannot_be_cancelled",),
    "recover-all": ("recovery/test_words.py::test_the_words_bring_the_channels_back", *_BOTH),
    "recover-pending": _BOTH,
    "bound-recovers": _BOTH,
    "written-before-sent": (f"{_LANE}test_restart_between_row_and_broadcast",),
    "fee-bump": (f"{_LANE}test_fee_spike",),
    "same-nonce": (f"{_LANE}test_outbid_in_the_pool",),
    "renumber-final": (f"{_LANE}test_nonce_used_by_a_stranger",),
}

REASONS: dict[str, str] = {
    "recover-closes": "a channel restored on both sides pays on once it is recovered: a close that "
    "was signed and sent after the backup, and is in no block yet, can still be included and "
    "disputed (docs/model.md, What remains)",
}
"""Counterexamples that are not met by real processes, and why."""
