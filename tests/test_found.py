"""Each fault that was found in a running server is held by a test that says in its docstring what had gone wrong."""

import ast
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent

# By name, since tests move.
HOLD = (
    "test_the_tree_of_a_task_is_read_without_what_may_be_large",
    "test_a_cancel_and_a_run_again_are_worked_out_beside_the_event_loop",
    "test_fields_keep_their_order",
    "test_storage_does_not_open_with_an_aiosqlite_that_lacks_a_hook",
    "test_other_codings_are_refused",
    "test_bytes_behind_the_end_are_an_error",
    "test_others_go_on_while_a_value_is_judged",
    "test_endless_judgement_is_killed_and_the_next_one_is_done",
    "test_schemas_of_one_request_are_bounded",
    "test_json_has_a_bounded_number_of_values",
    "test_answers_that_are_not_taken_are_bounded_and_a_read_past_that_is_refused",
    "test_open_inputs_are_bounded_and_make_room_when_they_end",
    "test_one_caller_cannot_hold_every_slot_and_another_one_starts_at_once",
    "test_threads_of_one_caller_that_hang_stop_nobody_else",
    "test_receivers_of_one_caller_that_never_answer_delay_no_delivery_of_another",
    "test_slow_names_of_one_caller_delay_no_other_caller",
    "test_beside_a_caller_with_200_trees_another_one_starts_when_one_task_ends",
    "test_the_guilty_one_is_found_whatever_it_runs_beside",
    "test_no_child_outlives_its_server",
    "test_no_child_outlives_the_command_that_runs_a_tree",
    "test_a_signal_that_ends_run_cancels_what_it_started",
    "test_what_left_the_group_ends_with_its_command",
    "test_a_forked_child_holds_neither_the_port_nor_the_database",
    "test_it_ends_its_attempt_and_nothing_else",
    "test_silent_handshakes_are_counted_and_end_with_the_time_of_a_head",
    "test_another_process_is_refused_by_every_name_of_the_file",
    "test_writes_are_refused_once_a_file_of_the_database_is_gone",
    "test_a_server_whose_database_was_removed_refuses_work_and_says_so",
    "test_a_clock_that_is_set_wrong_for_a_while_removes_nothing_before_its_time",
    "test_a_clock_that_is_set_wrong_makes_nobody_give_up_nor_wait",
    "test_whatever_stores_more_is_refused_at_the_quota",
    "test_a_caller_with_many_lists_reads_one_at_a_time_and_another_caller_is_served",
    "test_health_counts_a_callers_own_tasks_and_an_operators_those_of_its_tenant",
    "test_the_public_card_shows_the_skills_that_may_be_known_and_the_extended_one_the_callers",
    "test_operators_make_keys_for_their_own_tenant_and_the_servers_for_any",
    "test_jdk_client_gets_all_answers_whichever_version_it_asks_for",
    "test_no_byte_of_a_body_becomes_a_request_however_a_stream_is_cut",
    "test_streams_say_once_what_becomes_of_the_connection",
    "test_stream_of_a_client_that_closed_its_half_is_told_to_its_end",
    "test_no_blank_line_belongs_to_a_comment",
    "test_no_text_ends_a_line_for_python",
    "test_numbers_are_taken_in_both_bindings_and_versions",
    "test_a_message_is_one_operation_in_every_form_version_and_binding",
    "test_a_snapshot_and_the_stream_after_it_have_the_same_numbers",
    "test_a_root_tells_its_nodes_and_a_node_its_place",
    "test_an_executor_sees_and_sets_extensions_and_metadata",
    "test_both_names_of_ed25519_are_one_algorithm",
    "test_a_card_is_consistent_with_its_server_by_the_key_set_beside_it",
    "test_a_message_stands_in_the_status_or_in_the_history_in_every_binding",
    "test_a_question_stays_in_the_history_when_it_is_answered",
    "test_nodes_say_what_the_stored_tree_says",
    "test_a_cancelled_task_does_not_run_when_its_tree_does",
    "test_a_message_becomes_a_task_that_official_types_read",
    "test_a_thousand_functions_each_make_a_session",
    "test_a_session_is_there_wherever_a_program_makes_it",
    "test_who_waits_comes_before_a_thread_that_makes_loop_after_loop",
    "test_what_an_attempt_changes_is_its_own",
    "test_an_executor_that_is_cancelled_from_within_fails_and_is_tried_again",
    "test_questions_asked_side_by_side_are_put_together",
    "test_an_exception_is_told_with_its_type",
    "test_it_is_told_where_the_users_code_stood",
    "test_callers_are_told_as_much_as_the_setting_says",
    "test_server_without_a_thread_for_plain_functions_is_not_ready_and_says_why",
    "test_a_thread_that_outlives_its_attempt_keeps_its_executor_s_place",
    "test_an_executor_that_holds_the_loop_is_named_with_its_stack",
    "test_wrappers_over_a_coroutine_function_are_awaited",
    "test_tasks_cancel_says_what_still_runs",
    "test_a2a_says_canceled_where_it_is_and_not_cancelable_where_nothing_was",
    "test_the_decorator_works_without_parentheses",
    "test_functions_get_what_they_name",
    "test_a_file_that_cannot_be_used_is_named_with_the_reason_in_one_line",
    "test_process_1_does_what_is_its_duty",
    "test_seconds_pass_as_they_do_whatever_the_clock_is_set_to",
    "test_the_deadline_of_a_group_ends_all_below_it_and_nothing_else",
    "test_a_field_that_a_group_cannot_mean_is_refused",
    "test_attempts_that_end_within_the_drain_run_once",
    "test_what_a_start_does_not_check_is_checked_beside_the_work",
    "test_service_links_are_ignored_with_one_line",
    "test_files_and_modules_find_what_lies_beside_them",
    "test_a_function_in_a_process_of_its_own_finds_its_neighbours",
    "test_another_core_before_ours_is_told_in_one_line",
    "test_run_takes_a_time_without_quotes",
    "test_the_command_line_trusts_who_it_is_told_to",
    "test_a_certificate_that_is_not_trusted_is_told_in_one_line",
    "test_a_tree_that_an_executor_waits_for_runs_whatever_the_limit",
    "test_a_tree_is_its_owners_and_its_operators",
    "test_an_offset_is_refused_with_the_way_to_go",
    "test_a_tree_costs_its_viewer_by_the_event_not_by_the_size",
    "test_run_of_a_tree_that_asks_exits_4_and_says_what_to_do_next",
    "test_a_message_s_stream_resumes_where_it_broke",
    "test_a_fallback_runs_only_where_it_is_needed",
    "test_inputs_with_one_name_are_a_warning_that_names_both_dependencies",
    "test_a_tree_is_a_task_of_a2a_where_its_caller_wants_it_so",
    "test_a_second_signal_ends_the_server_at_once",
    "test_a_stream_keeps_no_snapshot_behind_its_first_event",
    "test_a_connection_that_its_client_ends_is_freed",
    "test_what_is_around_a_body_and_behind_it_is_bounded",
    "test_many_ids_are_cancelled_so_many_at_a_time",
    "test_timers_of_one_moment_ring_in_order_and_so_many_in_a_turn",
    "test_owners_with_much_do_not_keep_out_others_with_little",
    "test_a_job_waits_for_what_its_tree_has_in_line_and_for_nothing_else",
    "test_a_message_is_told_once_however_often_the_executor_runs_over_it",
    "test_the_next_start_ends_what_is_left_when_nobody_else_could",
    "test_with_force_a_failed_dependency_keeps_out_who_requires_it_and_not_who_can_do_without_it",
    "test_what_was_put_off_is_not_forgotten_when_the_database_is_full",
    "test_what_was_put_off_and_ended_again_waits_for_its_time_again",
    "test_what_cannot_be_stored_is_an_error_and_not_a_wait_for_ever",
    "test_a_writer_that_breaks_off_ends_the_process_for_nobody_would_be_answered",
    "test_writes_wait_for_a_lock_also_after_a_checkpoint_that_failed",
    "test_what_a_killed_backup_or_restore_left_is_taken_away",
    "test_a_file_that_cannot_be_made_ends_the_writer_with_its_reason",
    "test_a_copy_that_another_one_has_made_meanwhile_is_kept",
    "test_whatever_an_executor_says_is_bounded",
    "test_pages_of_a_log_end_early_where_they_are_large",
    "test_a_call_to_another_host_loads_no_library_on_the_event_loop",
    "test_a_cancel_after_a_run_of_a_part_is_told",
    "test_a_column_of_any_type_is_damage_that_is_told",
    "test_a_dependency_outside_the_tree_is_told_with_its_rule",
    "test_a_file_that_is_not_there_is_no_text",
    "test_a_first_run_after_a_cancel_is_told",
    "test_a_list_whose_caller_left_ends_at_once_and_its_connection_serves_the_next",
    "test_a_parent_that_ends_while_something_of_it_waits_for_its_slot_gives_back_what_it_holds",
    "test_a_receiver_that_is_gone_is_not_asked_again_when_it_cannot_be_removed_at_once",
    "test_a_v0_3_body_is_the_same_whenever_it_is_sent",
    "test_a_webhook_goes_on_when_a_change_of_it_fails_and_ends_when_it_does_not",
    "test_a_webhook_is_removed_in_one_write",
    "test_a_webhook_is_told_nothing_of_another_run_before_its_state_says_so",
    "test_an_attempt_that_is_stopped_before_its_first_step_holds_no_slot",
    "test_every_result_has_a_schema_with_properties",
    "test_modules_that_the_page_about_mutants_names_exist",
    "test_no_idle_connection_keeps_the_page_that_it_read",
    "test_one_line_of_code_logs_a_burst_and_then_so_many_a_second",
    "test_operators_read_whose_a_task_is",
    "test_start_line_shows_where_it_listens_beside_another_url",
    "test_the_house_keeps_its_bounds",
    "test_the_log_says_at_once_that_it_stops_and_at_the_end_that_it_has",
    "test_webhooks_that_have_nothing_to_do_go_with_their_tree_too",
    "test_what_failed_is_forgotten_when_everybody_knows_of_it",
    "test_what_was_read_of_a_webhook_is_not_believed_when_it_has_gone_on",
    "test_what_was_read_of_a_webhook_just_before_its_removal_is_not_believed_after_it",
    "test_who_is_refused_by_what_its_own_key_led_to_is_told_of_that",
    "test_what_another_process_changed_is_attempted_once_at_most_and_stays_as_it_is",
    "test_processes_that_start_at_the_same_time_have_one_key",
    "test_processes_say_the_same_of_the_same_documents",
    "test_keys_are_changed_beside_the_server_that_has_the_database",
    "test_a_key_that_has_expired_is_removed_once_when_two_members_see_it",
    "test_a_key_signs_the_same_text_with_the_same_signature",
    "test_what_went_on_before_a_crash_is_unread_however_long_the_start_takes",
)


@cache
def reasons() -> dict[str, str]:
    """The docstring of each test, by its name; empty for none."""
    return {
        each.name: ast.get_docstring(each) or ""
        for path in ROOT.rglob("test_*.py")
        for each in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef) and each.name.startswith("test_")
    }


def without_reason(names: Iterable[str]) -> Iterator[str]:
    for name in names:
        if name not in reasons():
            yield f"{name} is gone: what holds its fault now?"
        elif not reasons()[name].startswith("Found "):
            yield f"{name} does not say how its fault was found and what had gone wrong"


def not_listed(told: Mapping[str, str]) -> Iterator[str]:
    """Tests of faults that may vanish and nobody sees it."""
    for name, reason in told.items():
        if reason.startswith("Found ") and name not in HOLD:
            yield f"{name} holds a fault: add it to HOLD"


def test_a_test_of_a_fault_says_what_had_gone_wrong() -> None:
    assert not (broken := list(without_reason(HOLD))), "\n".join(broken)


def test_a_test_that_is_gone_or_says_nothing_would_be_found() -> None:
    told = list(without_reason(["test_of_a_fault_that_is_gone", "test_a_test_of_a_fault_says_what_had_gone_wrong"]))

    assert [each.split(" ")[0] for each in told] == [
        "test_of_a_fault_that_is_gone",
        "test_a_test_of_a_fault_says_what_had_gone_wrong",
    ]


def test_every_test_of_a_fault_is_listed() -> None:
    assert not (missing := list(not_listed(reasons()))), "\n".join(missing)


def test_a_test_of_a_fault_that_is_not_listed_would_be_found() -> None:
    told = {"test_new": "Found by a reader: something.", HOLD[0]: "Found by a soak: x.", "test_other": "A fact."}
    assert [*not_listed(told)] == ["test_new holds a fault: add it to HOLD"]
