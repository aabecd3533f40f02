"""Every piece of advice that a message gives is done by a test that is named here (of shards: test_advice_shards.py).

The messages are read from the source: one that is new, or reworded, turns `test_every_advice_is_done` red until `DONE`
names the test that does what it says, literally; or until it says why no test can (`ELSEWHERE`).
"""

from __future__ import annotations

import io
import re
from contextlib import redirect_stdout

import pytest

from command_line.arguments import HELP_ALL
from launcher import __main__ as launcher_commands
from tests.advice import advice, all_messages, do, named_test, no_longer_given, not_done

PACKAGES = ("trainer", "launcher", "slurm", "command_line")
BENCHMARK = "test_benchmark_command.test_neither_processes_nor_a_kill_change_results"
RUN = "test_advice_runs.test_a_run_from_its_begin_to_its_end"
CLUSTER = "test_slurm_dev_cluster.test_the_commands_and_a_site_that_never_requeues"
MEMORY = "test_out_of_memory.test_a_run_here_ends_and_what_it_says_to_do_works"
PREPARED = "test_prepare_cluster.test_refused_then_cancelled_then_resumed_on_other_nodes_to_a_bucket"
NOT_QUEUED = "test_prepare.test_what_a_cluster_cannot_do_is_refused_before_anything_is_queued"
BUNDLE = "test_bundles.test_what_a_bundle_cannot_do_is_refused"
PUSHED = "test_bundles.test_a_bundle_is_pushed_and_pulled"
REPORT = "test_report.test_refusals"
DONE = {  # a part of the message -> the test that does it
    "but a dataset; look at it with: {}": "test_tutorial.test_every_command_runs",
    "leave augment.kind, augment.apa and augment.blur_sigma out": "test_msg_gan.test_augmentations_are_left_out",
    "name run folders, or that of a study": REPORT,
    "which has a page of its own: name it alone": "test_report.test_a_study_has_one_page",
    "to be looked at side by side: name at most {}": REPORT,
    "is not made yet; the generator makes it with": "test_report.test_generators_make_what_only_they_can",
    "that could make pictures: leave --pictures out": REPORT,
    "makes no pictures of {}: {}; or leave --pictures": "test_report.test_generators_make_what_only_they_can",
    "only several seeds of each can tell": "test_study_runs.test_a_study_here_survives_an_interruption_and_a_failure",
    "and is no report: name another --out": REPORT,
    "cannot be written: {}; name another --out": REPORT,
    "share the run folder, and name the package": "test_plugins.test_one_of_each_is_used",
    "which is not installed here: pip install {}=={}": "test_plugins.test_one_of_each_is_used",
    "save and end": "test_program.test_alone_it_says_what_to_do_next",
    "lienzo                  what to do next, here": "test_program.test_one_page_lists_all",
    "see: lienzo --help": "test_program.test_one_page_lists_all",
    "that goes with this lienzo, or uninstall it": "test_plugins.test_a_broken_one_is_one_message",
    "is there already: name another folder, or remove it": BUNDLE,
    "is a bundle that holds none: leave it out": BUNDLE,
    "--format onnx needs {}: pip install": BUNDLE,
    "which holds no checkpoints: leave --checkpoint out": BUNDLE,
    "which holds one set of weights: leave it out": BUNDLE,
    "and no run: start one with --init-from": BUNDLE,
    "is no bundle: make one with python -m trainer export": PUSHED,
    "make the bundle again with python -m trainer export": PUSHED,
    "or was changed; get the bundle again": PUSHED,
    "python -m trainer sample FOLDER": "test_bundles.test_a_bundle_is_used_as_a_run",
    "--init-from FOLDER": "test_bundles.test_a_new_run_starts_from_both_networks_of_a_bundle",
    "python -m trainer evaluate": "test_bundles.test_an_evaluation_of_a_bundle_is_that_of_its_run",
    "of {} pixels; see: {}": "test_importing.test_stylegan2_ada_becomes_ours",
    "this version does not read: update lienzo": "test_bundles.test_a_config_from_a_stranger_is_refused",
    "; name another with --port, or 0 for a free one": "test_serving_parts.test_what_cannot_be_served_is_refused",
    "there is no run to serve: name": "test_serving_parts.test_what_cannot_be_served_is_refused",
    "leave --token-file out for a random one": "test_serving_parts.test_other_machines_need_a_token",
    "use its address, or --allow-host": "test_serving_parts.test_only_names_of_this_machine_are_known",
    "requests are under way: try again": "test_serving_parts.test_so_many_requests_are_under_way_and_no_more",
    "pip install lienzo[serve]": "test_serving_parts.test_the_extra_is_named",
    "pip install 'lienzo[tensorboard]'": "test_tensorboard.test_without_the_package_it_is_refused",
    "look at them with: tensorboard --logdir {}": "test_tensorboard.test_sync_writes_what_is_missing",
    "pip install 'lienzo[workspace]'": "test_workspace.test_what_it_needs_is_said",
    "{} is {}; end it first": PREPARED,
    "has jobs that wait or run: watch them with `{}`, or end": PREPARED,
    "submitted {}; watch it with: {}": NOT_QUEUED,
    "python -m launcher prepare": NOT_QUEUED,
    "--run {} holds a run that trains: name": NOT_QUEUED,
    "name one with --rank as well": NOT_QUEUED,
    "nothing is queued, and --resume goes on": "test_prepare.test_a_listing_that_is_interrupted_goes_on",
    "or use --cluster local": "test_prepare.test_places_that_other_nodes_do_not_see",
    "nothing is cancelled: try again": "test_prepare.test_cancel_while_slurm_is_away",
    "now, and both are there: keep {}": "test_migration.test_files_by_the_names_before_are_taken_with_a_hint",
    "75 interrupted and saved (the same command\ngoes on)": "test_interruptions.test_a_signal_saves_and_stops",
    "interrupted; the same command goes on": BENCHMARK,
    "a training was killed; the same": BENCHMARK,
    "the same command goes on from the features": "test_advice_pictures.test_an_evaluation_that_is_stopped",
    "stopped and saved; the same command": "test_study_runs.test_a_study_here_survives_an_interruption_and_a_failure",
    "The same command trains only what is missing": BENCHMARK,
    "the same command sends the rest": "test_tracking.test_sync_of_a_run_with_a_rollback",
    "name what to learn": "test_advice_trainer.test_a_benchmark_of_nothing",
    "name another --out, or remove the file": "test_advice_trainer.test_a_result_of_other_settings",
    "remove it, and its training is done again": "test_advice_trainer.test_a_result_of_other_settings",
    "set --augment.p, --augment.p-final or --augment.adaptive": "test_advice_trainer.test_settings_that_want_others",
    "fades over augment.blur_images: set both, or neither": "test_advice_trainer.test_settings_that_want_others",
    "which is 0: set that too": "test_advice_trainer.test_settings_that_want_others",
    "--penalties.classes-d.weight or --pen": "test_advice_trainer.test_settings_that_want_others",
    "does nothing without --network.g-conditional or --net": "test_label_runs.test_settings_on_labels_that_want_others",
    "{}, a {}: name it with --network.label-columns {}": "test_labels.test_vectors_of_stylegan_are_told",
    "use --network.d-head projection, or other --net": "test_label_runs.test_settings_on_labels_that_want_others",
    "whose names it takes: use --class": "test_label_runs.test_labels_that_nobody_was_told",
    "or named by --label: leave it out": "test_label_runs.test_labels_that_nobody_was_told",
    "that guesses: --network.d-head classifier": "test_advice_trainer.test_settings_that_want_others",
    "; try --batch-size": "test_advice_trainer.test_the_batch_size_that_is_told",
    "--scale-rule paper applies it": "test_batch_scaling.test_what_is_asked_for_is_recorded_and_stays_on_other_nodes",
    "; leave it out to keep all else": "test_batch_scaling.test_a_recipe_without_a_rule_does_as_it_is_told",
    "the paper's: --d-steps 2": "test_batch_scaling.test_the_rates_of_the_paper_of_biggan",
    "use at most {} (--processes; ": "test_advice_trainer.test_the_number_of_processes_that_is_told",
    "on Slurm fewer --nodes or --gpus-per-node": "test_advice_launcher.test_processes_that_the_nodes_decide",
    ", or begin a new run with {}": "test_advice_trainer.test_pictures_of_another_size",
    "no data is named: use --data DIR, a folder": "test_advice_trainer.test_data_that_is_not_named",
    "if it has moved, name its new place with --data": "test_advice_trainer.test_data_that_has_moved",
    "use a recipe of pictures": "test_advice_trainer.test_points_are_no_pictures",
    "build the shards again with {}{}": "test_advice_trainer.test_pictures_of_another_size",
    "build the shards again with --labels": "test_advice_trainer.test_pictures_without_labels",
    "lacks the shard {}; run: ": "test_advice_trainer.test_a_shard_that_is_missing",
    "no metric here wants any: add fid": "test_advice_pictures.test_metrics_that_want_something",
    "--extractor classifier does": "test_evaluate.test_how_good_the_classifier_is_is_said",
    "leave --extractor {} out": "test_advice_pictures.test_a_convention_has_its_own_extractor",
    "--against DATA or a folder": "test_advice_pictures.test_what_is_compared_with_what",
    "and build the shards again, into a new folder": "test_advice_pictures.test_a_damaged_sample",
    "name a run, a folder of shards or a folder": "test_advice_pictures.test_what_is_compared_with_what",
    "build others with: python -m shards": "test_advice_pictures.test_pictures_of_another_size",
    "is no usable picture: {} ({}); remove it": "test_advice_pictures.test_a_file_that_is_no_picture",
    "the features cannot be kept in": "test_advice_pictures.test_a_cache_that_cannot_be_written",
    "the classifier cannot be kept in": "test_extractors.test_a_classifier_needs_data_and_a_place",
    "put it there, or name it with --weights": "test_extractor_weights.test_inception_is_opened_from_the_file",
    "get it again": "test_extractor_weights.test_inception_is_opened_from_the_file",
    "save a state dict alone": "test_extractor_weights.test_inception_is_opened_from_the_file",
    "with safetensors": "test_extractor_weights.test_dinov2_is_opened_from_any_file_but_a_wrong_one_of_a_known_name",
    "name a run, or use --init-state weights": "test_advice_trainer.test_weights_without_progress",
    "keep its --batch-size and --d-steps": "test_advice_trainer.test_a_state_that_does_not_fit",
    "--init-state weights takes what fits": "test_advice_trainer.test_a_state_that_does_not_fit",
    "holds NaN or Inf; name {}": "test_advice_trainer.test_weights_that_have_broken",
    "as a run that trains does; try again": "test_advice_trainer.test_weights_that_change_just_now",
    "start a new run with --init-from": "test_advice_trainer.test_weights_that_change_just_now",
    "moved while it trained; go on": "test_copied_runs.test_a_folder_that_moves_while_it_trains_ends_with_where_it_is",
    "another process trains in {} already": RUN,
    "Go on as a new run with smaller parts": MEMORY,
    "Go on from the last good state": "test_going_on.test_what_a_diverged_run_is_told_to_do_works",
    **dict.fromkeys(
        (
            "name fewer --seeds or directions",
            "go together: name both",
            "leave --class, --label, --truncation out",
            "name two classes",
            "leave --direction, --directions, --layers out",
            "leave --class out",
            "use --seeds in place of --code",
            "of a run, so leave them out",
            "--data SHARDS or a folder of pictures",
            "too many for a sheet: name at most",
            "a projected one is found: leave it out",
            "use it without other choices of pictures",
            "--cols are {} pictures: name fewer",
            "use --by realism or logit",
            "ask for 1 to all of them",
            "name them by their numbers",
            "styles: --space w or w+",
            "no styles: --space z",
        ),
        "test_advice_making.test_what_is_advised_works",
    ),
    "write it again": "test_advice_making.test_a_code_file_that_is_written_again",
    "name real ones with --data": "test_advice_making.test_seeds_of_a_run_whose_data_is_not_known",
    "is made by ffmpeg, which is not here": "test_making.test_without_ffmpeg_an_mp4_is_refused_at_once",
    "leave --num and --seed out": "test_advice_pictures.test_options_that_do_not_go_together",
    "use --seeds in place of --seed": "test_advice_pictures.test_options_that_do_not_go_together",
    "name another folder, or --force": "test_advice_pictures.test_a_folder_that_is_not_empty",
    "interrupted and saved at {} images; go on with: ": RUN,
    "images seen; sample with: ": RUN,
    "the run has stopped; go on with: ": RUN,
    "unset them": "test_advice_trainer.test_variables_of_another_launcher",
    "start it once: `python -m": "test_advice_launcher.test_processes_that_the_nodes_decide",
    "`--processes N` on one machine": "test_advice_trainer.test_a_crowd_that_knows_nothing_of_each_other",
    "go on as a new run: ": "test_advice_trainer.test_identity_settings_that_cannot_change",
    "name a larger total, or none": "test_advice_trainer.test_a_total_that_is_passed",
    "keep one of them": "test_advice_trainer.test_two_lengths",
    "name one of them": "test_advice_trainer.test_two_lengths",
    "GPU: use --gpus-per-node": "test_advice_launcher.test_processes_that_the_nodes_decide",
    "one a micro-batch: use --nodes": "test_advice_launcher.test_processes_that_the_nodes_decide",
    "begin a new run: ": "test_advice_trainer.test_identity_settings_that_cannot_change",
    "begin a new run with them: ": "test_advice_trainer.test_weights_that_a_run_did_not_begin_with",
    "name another --run": "test_advice_trainer.test_a_run_of_another_recipe",
    "with --collapse.policy": "test_collapse_runs.test_the_policy_stop_saves_and_ends_and_a_resume_is_refused",
    "sample them in several goes": "test_advice_pictures.test_more_pictures_than_at_once",
    "on your own shards\n": RUN,
    "cannot be made: {}; remove what is there": "test_advice_launcher.test_bundled_pictures_that_cannot_be_built",
    "could not be made into shards": "test_advice_launcher.test_bundled_pictures_that_cannot_be_built",
    "; go on with: {}": RUN,
    "it may still train: try again": "test_advice_launcher.test_cancel_without_slurms_answer",
    "no longer waiting for {}; watch it with": "test_advice_launcher.test_a_wait_that_is_left",
    "use --cluster local to train on this machine": "test_advice_launcher.test_slurm_that_is_not_here",
    "on this machine with: python -m slurm up": CLUSTER,
    "the bundled pictures are not here: use": "test_advice_launcher.test_without_data_and_bundled_pictures",
    "without --nodes and --partition, the doctor": "test_doctor.test_this_machine_is_examined_without_slurm",
    "set interface in the profile to one of": "test_advice_launcher.test_the_doctors_options",
    "name a RUN": "test_advice_launcher.test_the_doctors_options",
    "after a preemption: python -m launcher resume": "test_advice_launcher.test_the_doctors_options",
    "save more often: --checkpoint-every-images": "test_advice_launcher.test_the_doctors_options",
    "# Defaults of this project.": "test_advice_launcher.test_init",
    "# data = ": "test_advice_launcher.test_init",
    "next: python -m launcher submit": "test_advice_launcher.test_init",
    "{} exists already: edit it, or remove it first": "test_advice_launcher.test_a_profile_that_is_written",
    "put this line above its first [table]": "test_advice_launcher.test_a_profile_that_is_written",
    "# What is particular to this cluster": "test_advice_launcher.test_a_profile_that_is_written",
    "name a --run on a file system": "test_advice_launcher.test_a_run_folder_on_a_disk_of_one_node",
    "add it to `mounts` in the profile": "test_checks.test_a_container_must_see_the_run_folder",
    "W&B is asked for online": "test_advice_launcher.test_wandb_without_a_key",
    "watch it with `{}`, or end it": "test_advice_launcher.test_a_run_that_has_a_job",
    "all that one sets: ": "test_advice_launcher.test_recipes_tell_how_to_start_them",
    "PICTURES --out DIR --size {}{}\n": "test_advice_launcher.test_recipes_tell_how_to_start_them",
    "name the folder that it leads to": "test_advice_launcher.test_a_run_behind_a_link",
    "only with --yes": "test_advice_launcher.test_a_run_behind_a_link",
    "{} is {}, by {}; end it first: ": RUN,
    "which is {}; end it first: ": "test_advice_launcher.test_a_run_that_has_a_job",
    "no runs under ./{}; begin one with": "test_advice_launcher.test_status_tells_what_to_do_next",
    "its g_ema is no list of the parameters of g": "test_importing.test_fastgans_average_is_a_list_of_parameters",
    "the live view needs textual: pip install": "test_watch.test_what_is_refused",
    "Save and end {}, which is {}?": "test_watch.test_cancel_and_resume_ask_and_then_do_it",
    "Go on with {}, which is {}?": "test_watch.test_cancel_and_resume_ask_and_then_do_it",
    "go on with: python -m launcher resume RUN": "test_advice_launcher.test_status_tells_what_to_do_next",
    "send to W&B what is offline": "test_tracking.test_sync_of_a_run_with_a_rollback",
    "; send it later with: ": RUN,
    "each run: python -m launcher status RUN": "test_advice_study.test_the_plan_tells_how_to_watch",
    "holds the study {}, not {}; name": "test_advice_study.test_another_study_in_the_folder",
    "wait for it, or end it": "test_advice_study.test_a_study_in_other_hands",
    "is of another version: remove it": "test_advice_study.test_a_study_of_another_version",
    "in another way; name another --out": "test_advice_study.test_a_budget_that_is_lowered",
    "take one of the figures": "test_advice_study.test_settings_of_a_study",
    "add [arms.NAME] with a recipe": "test_advice_study.test_settings_of_a_study",
    "take others": "test_advice_study.test_settings_of_a_study",
    "use letters, digits": "test_advice_study.test_settings_of_a_study",
    "remove {} and use --retry": "test_advice_study.test_a_short_run_that_told_no_speed",
    "this run exists already; go on with it": "test_advice_launcher.test_a_run_that_exists_is_gone_on_with",
    "no W&B key for {}: set WANDB_API_KEY": "test_tracking.test_sync_says_what_is_wrong",
    "A real Slurm with several nodes": CLUSTER,
    "comes back with: ": CLUSTER,
    "bring it back with: ": CLUSTER,
    "start one with: ": CLUSTER,
    "stop it first with: ": CLUSTER,
    "renew it with: ": "test_slurm_dev_cluster.test_a_cluster_of_another_version_goes_down_and_comes_up_again",
    "give another --folder": "test_slurm_dev_cluster.test_a_folder_of_something_else_is_refused",
    "give a --folder of at most": "test_slurm_dev_cluster.test_a_folder_of_something_else_is_refused",
    "name a .toml file, or one of": "test_advice_launcher.test_profiles_that_are_named",
}
ELSEWHERE = {  # a part of the message -> why no test does it
    "up to {}; update lienzo": "the later version is not here",
    "by process {}: cancel it there": "there is another machine",
    "see: sinfo": "it is Slurm's own command",
    "see: squeue --me": "it is Slurm's own command",
    "ask it yourself: quota": "it is the system's own command",
    "use fewer nodes, a larger batch, or a faster network": "the site's network",
    "mend what is above; if nothing is": "the site's network",
    "pip install -c constraints.txt": "what is installed on the nodes",
    "ask the administrators to look at chrony or ntpd": "the nodes' clocks",
    "make the interpreter and the current folder visible": "the nodes' file systems",
    "ask for nodes of one kind": "the site's nodes",
    "resume on the nodes that it began on": "the site's nodes",
    "look at its rights, its space and how it is mounted": "the site's file systems",
    "put the run folder on the shared file system": "the site's file systems",
    "mount it with a shorter attribute cache": "the site's file systems",
    "put the run folder on another file system": "the site's file systems",
    "if there is a faster file system for run folders": "the site's file systems",
    "free some: at least": "the disk is the user's",
    "remove something": "the disk is the user's",
    "sees no GPU, and rank {} on {} sees {}: give every node": "there is no GPU",
    "cut into MIG slices: NCCL joins whole cards only, so use": "there is no GPU",
    "Start one process a GPU: --processes {} on this": "there is no GPU; it is shown with pretended ones",
    "Take it out of the profile's environment": "there is no GPU",
    "process a GPU: use at most --processes {}": "there is no GPU; it is shown with pretended ones",
    "NCCL finds two processes on one GPU": "there is no GPU",
    "): start one process a GPU": "there is no GPU",
    "set `interface` in the profile to one of its own": "the site's network",
    "install the same torch on all nodes": "what is installed on the nodes",
    "look at nvidia-smi and dmesg on this node": "there is no GPU",
    "see which way is closed with `python -m launcher doctor`": "the site's network",
    "Begin a new run with {}": "what was too large is not here; every run of the tests is such a smaller one",
    "smaller networks (--network.g-channels": "the same",
    "this GPU has no bf16 and computes it in float32": "there is no GPU",
    "set `interface` in the profile, or NCCL_IB_HCA": "the site's network",
    "look at nvidia-smi on that node; torch must be": "there is no GPU",
    "unset NCCL_P2P_DISABLE and NCCL_P2P_LEVEL": "there is no GPU",
    "unset NCCL_IB_DISABLE, see NCCL_IB_HCA": "the site's network",
    "set --micro-batch-size {}": "there is no GPU; every run of the tests sets one",
    "to try --recipe on; on Slurm: srun --gpus=1": "there is no GPU",
    "set --mixed-precision bf16, or smaller": "there is no GPU",
    "look into `setup`, `environment` and `srun`": "the site's profile and prolog; resuming is in many tests",
    "after an interruption, resume it": "a site that never requeues; resuming is in many tests",
}
NO_ADVICE = {  # what only looks like it
    "It makes pictures like those of its training data, with what these show and leave out, and some may be near",
    *(
        "python -m trainer",
        "python -m trainer train",
        "python -m trainer {}",
        "python -m launcher {}",
        "python -m launcher doctor",
        "python -m launcher rm",
        "python -m slurm",
    ),
    *("python -m launcher submit", "python -m launcher resume", "checkpoint %s is damaged: %s; set aside as %s"),
    r"\bpython -m (launcher|shards|slurm|trainer)\b",
    *("run: there is no {}; {}", "Name a file for the browser to save."),
    *(
        "move must be DIRECTION:DEVIATIONS, such as 0:1.5, but is {}",
        "move: this generator has {} directions, but not number {}",
    ),
    *("job {} to save and end", "go on", "goes on", "go on with: ", "run folder", "name {}"),
    *(
        "start {} of {}: job {} on {}, {}Z",
        "remove it for good? [y/N] ",
        "too few of its partition's nodes are up and ",
    ),
    *("{}, project {}, run {}, in your default entity", "# The ranks answer what ends an attempt; "),
    'RUN=$(sed -n "$((SLURM_ARRAY_TASK_ID + 1))p" {})',
}
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9.-]*[a-z0-9]")
COMMANDS = {
    "trainer": (
        *("train", "sample", "interpolate", "fingerprint", "evaluate", "benchmark"),
        *("stylemix", "edit", "project", "nearest", "seeds", "serve"),
        *("export", "import", "push", "pull"),
    ),
    "launcher": (*launcher_commands.COMMANDS,),
    "shards": ("build", "verify", "inspect"),
    "slurm": ("up", "down", "status", "fail", "heal", "drain"),
}
FOREIGN = {"--me", "--gpu-bind", "--gpus", "--logdir"} | {"--version"}  # of other programs; of lienzo alone


def is_none(message: str) -> bool:
    """Tell whether a message only looks like advice; long ones are known by how they begin."""
    return any(message == one or (len(one) > 40 and message.startswith(one)) for one in NO_ADVICE)


def test_every_advice_is_done() -> None:
    given = [message for message in advice(*PACKAGES) if not is_none(message)]
    assert len(given) > 100
    assert not_done(given, [*DONE, *ELSEWHERE]) == []
    assert no_longer_given(given, [*DONE, *ELSEWHERE]) == []


def test_the_tests_that_do_it_are_there() -> None:
    for name in {*DONE.values()}:
        assert callable(named_test(name)), name


@pytest.fixture(scope="module")
def options() -> set[str]:
    """All options of all commands."""
    found = {HELP_ALL}
    for package, commands in COMMANDS.items():
        for command in commands:
            with redirect_stdout(io.StringIO()) as said, pytest.raises(SystemExit, match="0"):
                do(f"python -m {package} {command} {HELP_ALL}")
            found |= {*OPTION.findall(said.getvalue())}
    assert {"--network.no-g-conditional", "--cluster", "--folder", "--holdout", "--yes"} <= found
    return found


def test_every_option_that_a_message_names_exists(options: set[str]) -> None:
    for message in all_messages(*PACKAGES):
        for option in OPTION.findall(message):
            assert option in options | FOREIGN, message


def test_paths_in_commands_that_are_told_are_quoted() -> None:
    """They are made by `command`, or by shlex: no message fills one into a command of its own."""
    for message in all_messages(*PACKAGES):
        for command in re.findall(r"(?:python -m|tail) [^;:`)\n]*", message):
            left = command.removesuffix("launcher {}").removesuffix("trainer {}")  # as a program calls itself
            assert "{" not in left.replace("--out NEW {}", "").replace("--size {}{}", "").replace("--size {}", ""), (
                message
            )
