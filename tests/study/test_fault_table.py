"""What can go wrong with a study, and which tests make it go wrong; whoever renames one of them is told here."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]

FAULTS: dict[str, tuple[str, ...]] = {
    "3: the coordinator is killed, 50 times": (
        "study/test_kill.py::test_a_study_killed_50_times_is_the_study_that_was_never_killed",
        "study/test_kill.py::test_workers_end_with_a_coordinator_that_is_killed_and_the_next_one_goes_on",
        "study/test_kill_postgresql.py::test_a_study_killed_20_times_is_the_study_that_was_never_killed",
        "cli/test_kill.py::test_a_study_killed_between_and_in_trials_is_the_study_that_was_never_killed",
        (
            "cli/test_tune_workers.py::"
            "test_no_trial_outlives_a_killed_command_and_the_study_is_the_one_that_was_never_killed"
        ),
        "cli/test_tune_workers.py::test_no_worker_outlives_a_killed_command_and_the_study_goes_on",
    ),
    "4: a worker is killed": (
        "study/test_kill.py::test_a_study_whose_workers_are_killed_loses_no_trial_and_counts_none_twice",
        "study/test_kill_postgresql.py::test_a_study_whose_workers_are_killed_loses_no_trial_and_counts_none_twice",
        "cli/test_trial_faults.py::test_a_fault_costs_its_trial_and_is_said_in_one_line",
    ),
    "5: a trial is killed at each attempt": (
        "cli/test_trial_faults.py::test_a_fault_costs_its_trial_and_is_said_in_one_line",
        "cli/test_trial_faults.py::test_a_study_of_which_every_trial_is_killed_ends_without_a_result",
    ),
    "8: a signal ends the study while trials run": (
        "cli/test_tune_workers.py::test_a_signal_ends_the_trials_and_says_how_to_go_on",
        "cli/test_signals.py::test_tune_keeps_the_finished_trials_and_goes_on",
    ),
    "12: the disk is full": (
        "study/test_refusals.py::test_a_disk_that_is_really_full_loses_nothing",
        "study/test_refusals.py::test_a_full_disk_loses_nothing_and_the_study_goes_on_after_it",
        "study/test_refusals.py::test_a_file_that_may_not_grow_loses_nothing_either",
        "cli/test_study_faults.py::test_a_file_that_cannot_grow_ends_the_study_and_keeps_what_is_finished",
        "cli/test_study_changing.py::test_backup_on_a_full_disk_leaves_nothing",
    ),
    "13: standard output is full, closed, or read by nobody": (
        "cli/test_study_faults.py::test_an_answer_that_cannot_be_written_costs_the_answer_alone",
        "cli/test_streams.py::test_a_reader_that_goes_away_ends_the_command_with_141",
    ),
    "14: a folder or a file may not be written": (
        "cli/test_study_faults.py::test_a_folder_that_may_not_be_written_is_named_before_a_trial",
        "study/test_refusals.py::test_a_folder_without_permission_is_named_before_anything_is_tried",
        "study/test_refusals.py::test_a_file_without_permission_is_named",
        "study/test_postgresql_refusals.py::test_a_schema_that_we_may_not_write_to_is_refused",
    ),
    "15: two at one study": (
        "study/test_kill.py::test_a_second_coordinator_is_refused_until_the_first_is_dead",
        "cli/test_signals.py::test_two_tunes_of_one_study",
    ),
    "16: the owner is dead, its number is that of another process, the machine was started again": (
        "study/test_exclusive_session.py::test_a_dead_owner_is_replaced_and_its_trials_wait_again",
        "cli/test_tune_workers.py::test_no_worker_outlives_a_killed_command_and_the_study_goes_on",
    ),
    "17: the owner is dead, and processes live that have its open files": (
        "study/test_kill.py::test_a_dead_coordinator_whose_children_live_holds_nobody_up",
    ),
    "18: eight processes create one study": (
        "study/test_kill.py::test_eight_processes_create_one_store_at_once",
        "study/test_kill.py::test_eight_processes_create_one_study_at_once_and_seven_are_told",
        "study/test_postgresql.py::test_eight_processes_create_one_study_at_once_and_seven_are_told",
    ),
    "19: another program locks the store for 70 s": (
        "study/test_refusals.py::test_a_study_that_another_program_locks_for_too_long_ends_and_goes_on_then",
        "cli/test_study_faults.py::test_a_database_that_another_program_locks_is_an_error_that_names_it",
        "study/test_postgresql_refusals.py::test_a_lock_that_stays_is_a_failure_that_names_its_holder",
    ),
    "20: the file is empty, text, cut, or has pages of zeros": (
        "cli/test_study_faults.py::test_a_file_that_is_no_sound_study_is_refused_and_left_as_it_is",
        "study/test_damaged_files.py::test_a_file_that_is_no_study_database_is_refused_and_left_alone",
    ),
    "21: the file is of a newer or an older version": (
        "cli/test_study_faults.py::test_a_file_that_is_no_sound_study_is_refused_and_left_as_it_is",
        "cli/test_study_faults.py::test_a_study_of_an_older_version_is_migrated_and_kept_beside",
        "study/test_migrations.py::test_a_study_goes_on_as_if_nothing_had_happened",
        "study/test_postgresql.py::test_tables_of_an_older_version_are_brought_to_this_one",
        "study/test_postgresql_refusals.py::test_tables_of_another_version_are_refused",
    ),
    "22: the file is on a network file system": (
        "cli/test_study_faults.py::test_a_network_file_system_is_warned_of",
        "study/test_damaged_files.py::test_a_network_file_system_is_known_by_its_mount",
    ),
    "31: a trial reports what is no finite number, nothing, or twice": (
        "cli/test_trial_faults.py::test_a_fault_costs_its_trial_and_is_said_in_one_line",
        "study/test_coordinator.py::test_a_value_that_is_no_finite_number_fails_its_trial_and_is_never_best",
    ),
    "32: a trial ends well without a result": (
        "cli/test_trial_faults.py::test_a_fault_costs_its_trial_and_is_said_in_one_line",
    ),
    "33: a trial hangs, with children in other groups and sessions": (
        "cli/test_trial_faults.py::test_a_trial_that_hangs_is_ended_with_all_that_it_started",
    ),
    "34: a trial prints without end": (
        "cli/test_trial_faults.py::test_a_trial_that_prints_a_gigabyte_fills_neither_memory_nor_disk_nor_the_pipe",
    ),
    "35: names that are paths, options, or words for a shell": (
        "cli/test_trial_faults.py::test_names_of_candidates_are_data_wherever_they_go",
        "cli/test_trial_faults.py::test_a_name_of_a_study_that_could_be_something_else_is_refused",
        "study/test_setup.py::test_a_bad_name_is_refused",
    ),
    "39: what runs the trials, or keeps the study, is lost or cannot be reached": (
        (
            "study/test_shared_processes.py::"
            "test_a_study_of_five_of_which_20_are_killed_loses_no_trial_and_counts_none_twice"
        ),
        "execution/test_ray_engine.py::test_a_killed_worker_of_ray_loses_its_trial_and_nothing_of_it_runs_on",
        "execution/test_ray_engine.py::test_a_killed_node_loses_its_trial_and_the_other_node_goes_on",
        "execution/test_ray_engine.py::test_a_cluster_that_is_not_there_is_named",
        (
            "execution/test_ray_coordinators.py::"
            "test_a_killed_coordinator_leaves_no_trial_on_the_cluster_and_the_next_one_counts_each_once"
        ),
        "study/test_kill.py::test_a_study_whose_workers_are_killed_loses_no_trial_and_counts_none_twice",
        "study/test_postgresql_refusals.py::test_a_server_that_cannot_be_reached_is_a_failure_without_a_password",
        "study/test_postgresql_refusals.py::test_connections_lost_between_transactions_are_not_noticed",
    ),
    "40: a study is resumed with other settings": (
        "cli/test_study_faults.py::test_a_study_goes_on_with_other_workers_but_with_no_other_setting",
        "cli/test_tune.py::test_resume_with_other_options_names_each_that_differs",
        "cli/test_tune.py::test_a_study_goes_on_with_the_same_weights_wherever_they_are",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_there_is_a_test_that_makes_it_happen(fault: str) -> None:
    for name in FAULTS[fault]:
        path, _, test = name.partition("::")
        tree = ast.parse((TESTS / path).read_text(encoding="utf-8"))
        found = [one.name for one in ast.walk(tree) if isinstance(one, ast.FunctionDef)]
        assert found.count(test) == 1, name
