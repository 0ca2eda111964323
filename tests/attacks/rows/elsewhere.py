"""What is attacked in other tests of this repository, or cannot be attacked here at all."""

from __future__ import annotations

from typing import Final

from tests.attacks.row import MUTATION, Attack

_HTTP2: Final = "tests/http2/test_attacks.py"
_TRANSPORT: Final = "tests/transport/test_attacks.py"
_FAIR: Final = "tests/transport/test_fairness.py"
_BEHAVIOUR: Final = "tests/transport/test_behaviour.py"
_LIFE: Final = "tests/keystore/test_life.py"
_SQLITE: Final = "tests/keystore/test_sqlite.py"
_FILTERS: Final = "tests/envoy/test_filters.py"


def _row(
    name: str,
    does: str,
    stopped_by: str,
    attack: str,
    noticed: str = "",
    *,
    twin: str = "",
    source: str = "",
) -> Attack:
    return Attack(name, does, stopped_by, attack, twin, noticed=noticed, source=source)


SERVER: Final = [
    _row(
        "flood",
        "one pod asks as fast as it can",
        "a namespace is read at its rate; others take turns",
        f"{_FAIR}::test_what_one_namespace_sends_does_not_take_the_latency_of_another",
        twin=f"{_FAIR}::test_greedy_connections_take_turns",
    ),
    _row(
        "connections",
        "one pod opens all connections",
        "a limit for each namespace",
        f"{_TRANSPORT}::test_no_namespace_has_more_connections_than_allowed",
    ),
    _row(
        "handshakes",
        "begins handshakes and never ends them",
        "a limit, the oldest goes",
        f"{_TRANSPORT}::test_a_crowd_that_never_finishes_its_handshakes_keeps_nobody_out",
    ),
    _row(
        "rapid-reset",
        "opens streams and resets them",
        "a budget for each connection",
        f"{_HTTP2}::test_rapid_reset_cve_2023_44487",
        source="CVE-2023-44487",
    ),
    _row(
        "made-you-reset",
        "makes the server reset its streams",
        "the same budget",
        f"{_HTTP2}::test_made_you_reset_cve_2025_8671",
        source="CVE-2025-8671",
    ),
    _row(
        "continuation",
        "a header block without end",
        "a limit on header lists",
        f"{_HTTP2}::test_continuation_flood_cve_2024_27316",
        source="CVE-2024-27316, CVE-2026-47774",
    ),
    _row(
        "hpack-bomb",
        "headers that expand",
        "no header list is decoded beyond its limit",
        f"{_HTTP2}::test_a_header_bomb_is_not_decoded_to_its_end",
    ),
    _row(
        "shared-block",
        "header blocks that are remembered for another caller",
        "a block is remembered only if it changes no table",
        "tests/http2/test_hpack.py::test_what_is_remembered_is_what_decoding_would_give",
        "tests/http2/test_hpack.py::test_the_test_notices_a_wrong_rule",
    ),
    _row(
        "shared-connection",
        "resets streams on the connection that a sidecar in front of us shares",
        "no limit on resets there: Envoy has its own",
        f"{_TRANSPORT}::test_resets_that_a_sidecar_passes_on_do_not_end_what_all_share",
    ),
    _row(
        "xfcc",
        "forges X-Forwarded-Client-Cert to a server that goes by it",
        "the last element, By= us, one URI",
        "tests/test_identity.py::test_nothing_that_a_client_sends_first_changes_who_it_is",
        f"{MUTATION}[the first XFCC element]",
        twin=f"{_BEHAVIOUR}::test_one_connection_carries_many_callers",
    ),
    _row(
        "metadata-identity",
        "says in metadata who it is",
        "the certificate tells; the switch for metadata is for development",
        f"{_BEHAVIOUR}::test_metadata_does_not_say_who_asks_where_the_certificate_does",
        "tests/test_config.py::test_the_insecure_identity_never_runs_in_kubernetes",
    ),
    _row(
        "resumed-session",
        "resumes a TLS session of an authority that is gone",
        "no tickets; a new context for each reload",
        f"{_BEHAVIOUR}::test_a_resumed_session_does_not_keep_a_removed_authority_alive",
    ),
    _row(
        "many-names",
        "makes up namespaces and keys to fill stores and caches",
        "keys are derived, caches bounded for each asking namespace",
        "tests/test_keys.py::test_made_up_namespaces_do_not_fill_the_memory",
        "tests/test_cache.py::test_an_identity_that_asks_for_everything_evicts_only_itself",
    ),
    _row(
        "cache-confusion",
        "gets an answer that was remembered for somebody else",
        "answers are remembered by all the facts that decide",
        "tests/test_cache.py::test_who_asks_makes_a_difference",
        "tests/test_cache.py::test_with_the_cache_every_answer_is_the_one_without",
        source="GHSA-4mq7-pvjg-xp2r",
    ),
    _row(
        "leaked-key",
        "forges tokens of another source with one leaked key",
        "a key belongs to one namespace",
        "tests/test_tokens.py::test_a_token_verifies_only_with_its_own_namespaces_key",
        f"{MUTATION}[one secret for all namespaces]",
    ),
    _row(
        "reborn",
        "keeps tokens of a namespace that was deleted and made anew",
        "revocation by namespace, at once and for good",
        "tests/test_keys.py::test_revoking_a_namespace_counts_at_once_and_for_good",
        f"{MUTATION}[revoked generations verify]",
    ),
    _row(
        "older-copy",
        "waits with a revoked key until a backup of the key store is put back, and changed further",
        "a server takes no keyring that takes back what the one in use has settled",
        f"{_LIFE}::test_a_copy_that_is_put_back_takes_nothing_back[a revoked namespace by a copy]",
        f"{_LIFE}::test_without_comparing_keyrings_it_does[a revoked namespace by a copy]",
        twin=f"{_LIFE}::test_a_copy_that_lacks_nothing_is_taken",
    ),
    _row(
        "older-copy-later",
        "the same with a stolen root key, long after it was revoked and its tokens expired",
        "ids of roots that are over are kept for ever",
        f"{_LIFE}::test_a_copy_that_is_put_back_takes_nothing_back"
        "[a revoked root by a copy when it is no longer listed]",
        f"{MUTATION}[roots that are over are forgotten]",
        twin=f"{_LIFE}::test_after_recover_all_servers_agree_whatever_was_lost",
    ),
    _row(
        "older-copy-fresh",
        "the same where servers start anew, which cannot know",
        "commands and logs say that it is a copy; `authz keys recover` revokes every key",
        "tests/test_cli.py::test_a_copy_that_was_put_back_is_told_and_recovered",
        f"{_SQLITE}::test_without_a_mark_nothing_is_known_and_the_next_change_makes_one",
        twin="tests/test_cli.py::test_the_newest_copy_is_kept_as_it_is",
    ),
    _row(
        "emptied-store",
        "none: the key store is cut to nothing, and a new keyring would lock everybody out",
        "a store that held a keyring is not made anew",
        f"{_SQLITE}::test_where_a_keyring_was_none_is_made_anew",
        f"{_SQLITE}::test_an_empty_file_is_a_store_to_be_created",
        twin=f"{_SQLITE}::test_a_url_opens_the_file",
    ),
    _row(
        "clock-behind",
        "none: a key is rotated by a clock that is two hours behind",
        "no rotation by a clock that is before the last change, or not the API server's",
        f"{_LIFE}::test_a_clock_that_is_behind_ends_no_key",
        f"{_LIFE}::test_without_looking_at_the_clock_it_does",
        twin=f"{_LIFE}::test_clocks_that_differ_as_they_may_are_in_nobodys_way",
    ),
    _row(
        "pending-root",
        "none: the newest root is revoked while another is about to sign",
        "a root that was overtaken never signs",
        f"{_LIFE}::test_what_was_pending_when_its_successor_is_revoked_never_signs",
        f"{_LIFE}::test_without_overtaking_it_its_last_tokens_are_denied",
        twin="tests/test_keys.py::test_what_signs_for_longer_since_its_successor_is_revoked"
        "_verifies_for_longer",
    ),
    _row(
        "kek-pipe",
        "none: a pipe into which nobody writes is given as the KEK, or the disk is full",
        "KEK files are regular files, and whole or not there",
        "tests/keystore/test_keks.py::test_a_full_disk_leaves_no_part_of_a_kek_file",
        "tests/keystore/test_keks.py::test_without_removing_it_a_part_would_be_in_the_way",
        twin="tests/keystore/test_keks.py::test_a_generated_file_is_private_and_read_again",
    ),
    _row(
        "timing",
        "finds a MAC by the time that comparing takes",
        "compared in constant time",
        "tests/test_tokens.py::test_macs_are_compared_in_constant_time",
        f"{MUTATION}[signatures compared in variable time]",
        source="Envoy OAuth2, 1.38.1",
    ),
    _row(
        "spellings",
        "another spelling of a token's base64url",
        "one spelling counts",
        "tests/test_tokens.py::test_no_byte_of_a_token_can_be_changed",
        f"{MUTATION}[two spellings of the claims]",
    ),
    _row(
        "reasons",
        "tells unknown keys, bad MACs and missing grants apart by our answers",
        "three words outward",
        "tests/test_extauthz.py::test_every_denial_has_one_of_three_words",
        "tests/test_extauthz.py::test_no_answer_tells_the_details_of_a_denial",
    ),
    _row(
        "log-forging",
        "writes log lines by a request id",
        "request ids are cut and made printable",
        "tests/test_observe.py::test_a_request_id_cannot_write_a_line_of_its_own",
    ),
    _row(
        "secrets-told",
        "looks for secrets in logs, metrics and errors",
        "nothing prints them",
        "tests/test_secrets.py::test_nothing_that_the_service_says_holds_a_secret",
        "tests/test_secrets.py::test_the_search_finds_a_secret_in_every_form",
    ),
    _row(
        "labels",
        "fills metrics with labels of its own",
        "nothing that a tenant says becomes a label",
        "tests/test_observe.py::test_nothing_that_a_tenant_says_becomes_a_label",
    ),
    _row(
        "no-verify",
        "a namespace whose pods nobody protects goes unnoticed",
        "metrics list who signs and never verifies",
        "tests/test_observe.py::test_a_namespace_that_signs_and_never_verifies_is_listed_until_it_does",
    ),
    _row(
        "recursion",
        "our own sidecar asks us about each question",
        "authz-system.yaml",
        f"{_FILTERS}::test_nothing_asks_in_our_own_namespace",
    ),
    _row(
        "reserved-names",
        "a namespace called `svc`, hosts that resolve in two ways",
        "host grammar; signing goes by the cluster",
        "tests/test_names.py::test_host_names_its_namespace_or_none",
        f"{MUTATION}[a service without a name]",
    ),
    _row(
        "wider-policy",
        "a policy with a typing error lets more in",
        "a bad policy changes nothing, and says so",
        "tests/server/test_changes.py::test_a_bad_policy_is_told_and_counted_and_the_last_good_one_stays",
        "tests/test_policyfile.py::test_whatever_is_cut_out_of_a_good_policy_it_is_one_or_a_bad_one",
    ),
]

CVES: Final = [
    _row(
        "empty-answer",
        "an answer without status counts as an allow",
        "one builder for each answer; only an explicit allow becomes status 0",
        "tests/test_extauthz.py::test_only_an_explicit_allow_becomes_status_0",
        "tests/envoy/test_answer_semantics.py::test_a_denied_response_without_status_allows",
        source="kyverno-authz's default, Google's Python callouts",
    ),
    _row(
        "cancelled",
        "a timeout or error amid a decision leaves an empty answer, which allows",
        "any exception fails the call",
        "tests/test_extauthz.py::test_an_error_at_any_seam_denies",
        source="Authorino #649",
    ),
    _row(
        "not-utf-8",
        "header bytes that make the question malformed, which a filter that fails open lets in",
        "verify fails closed; bytes are read as bytes",
        "tests/test_extauthz.py::test_bytes_that_are_not_ascii_are_read_and_never_good",
        f"{_FILTERS}::test_without_the_service_only_sign_lets_through",
        source="CVE-2023-27488, CVE-2024-23324",
    ),
    _row(
        "route-override",
        "a reset frees a per-route override of the filter",
        "does not apply: no filter of ours is set per route",
        "tests/envoyfilters/test_manifests.py::test_every_filter_that_asks_says_what",
        source="CVE-2026-47205",
    ),
    _row(
        "x-envoy",
        "x-envoy-* headers that are trusted from inside",
        "none is read or sent to us",
        f"{_FILTERS}::test_it_sends_only_the_headers_that_are_read",
        source="CVE-2024-45806, CVE-2023-27487, GHSA-vhr5-ggp3-qq85, CVE-2026-40575",
    ),
    _row(
        "paths",
        "a path that is read in two ways",
        "paths decide only in exemptions, whole, and in Eventing, by a segment that is a namespace",
        "tests/decision/test_entry.py::test_every_field_of_an_exemption_must_match",
        f"{MUTATION}[exempt below a path]",
        source="CVE-2019-9901, CVE-2021-29492, CVE-2021-31920, GHSA-9f29-v6mm-pw6w,"
        " GHSA-p224-6x5r-fjpm, CVE-2024-10005, CVE-2021-39206",
    ),
    _row(
        "host-case",
        "a Host in another case, with a dot or port",
        "Hosts are normalised before they are read",
        "tests/test_names.py::test_a_normal_host_is_its_own_normal_form",
        f"{MUTATION}[hosts are lowered before they are looked at]",
        source="CVE-2021-39155, CVE-2021-39156",
    ),
    _row(
        "version-skew",
        "a proxy or control plane of another version reads a rule as always true",
        "filters are tested with every supported Envoy",
        f"{_FILTERS}::test_it_asks_its_question_and_the_client_has_no_say",
        source="CVE-2022-21679",
    ),
    _row(
        "token-of-another-kind",
        "a signed value of another purpose",
        "domain separation in MAC and key derivation",
        "tests/test_tokens.py::test_the_mac_is_what_the_documentation_says",
        f"{MUTATION}[the key id is not signed]",
        source="CVE-2024-47616, CVE-2023-33189",
    ),
    _row(
        "labels-of-pods",
        "labels that a tenant chooses select its policy",
        "who asks and who calls are SPIFFE IDs; no label is read",
        "tests/decision/test_modes.py"
        "::test_roles_belong_to_a_service_account_in_a_trust_domain_not_to_a_namespace",
        source="CVE-2023-39347, CVE-2023-41333",
    ),
    _row(
        "probe-agents",
        "a health check's agent skips authorization",
        "no agent exempts a peer that is not named",
        "tests/decision/test_entry.py::test_no_header_exempts_another_peer",
        f"{MUTATION}[exempt with any user agent]",
        source="GHSA-5hvv-m4w4-gf6v",
    ),
    _row(
        "grpcio",
        "crashes of the gRPC library",
        "our own HTTP/2 serves by default; the library is pinned from below",
        "tests/http2/test_fuzz.py::test_any_bytes",
        source="CVE-2023-32731, CVE-2023-33953, CVE-2024-7246",
    ),
    _row(
        "protobuf-depth",
        "a message nested without end",
        "does not apply: upb limits the depth; what cannot be read is denied",
        "tests/test_extauthz.py::test_a_request_that_cannot_be_read_is_denied_and_recorded_as_such",
        source="CVE-2025-4565",
    ),
]

ROWS: Final = [*SERVER, *CVES]
