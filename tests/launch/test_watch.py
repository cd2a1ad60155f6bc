"""The watcher of TPU slices against a stand-in for gcloud: whatever fails, what it spends is bounded,
and a watcher that is started again goes on where the last one was.
"""

import contextlib
import io
import json
import random
import subprocess
import sys
from datetime import UTC, datetime

import pytest
import watch
from dry_run import BUCKET, ROOT, RUN, files, launch

START = 1_795_900_000.0  # Unix seconds; when the clock of a test begins
HOUR = 3600.0
_GCLOUD = r"""#!/bin/bash
W=WORLD
case "$*" in
  *"queued-resources describe"*) verb=describe ;;
  *"tpu-vm describe"*) verb=created ;;
  *"queued-resources create"*) verb=create ;;
  *"queued-resources delete"*) verb=delete ;;
  *"storage cat"*ledger.json*) verb=progress ;;
  *"storage cat"*slices.json*) verb=read ;;
  *"storage cp - "*) verb=write ;;
  *"kill -TERM"*) verb=stop ;;
  *"bash worker.sh"*) verb=start ;;
  *"tail -n 40"*) verb=tails ;;
  *"--worker=0"*) verb=follow; echo "$*" >> $W/followed ;;
  *) verb="unknown: $*" ;;
esac
echo "$verb" >> $W/calls
[ $verb = write ] && cat > $W/slices.json
if [ ! -e $W/$verb ]; then
  [ $verb = read ] && { cat $W/slices.json 2>/dev/null && exit 0
    echo "ERROR: (gcloud.storage.cat) The following URLs matched no objects or files: x" >&2; exit 1; }
  exit 0
fi
{ read -r code; read -r out; read -r err; } < $W/$verb
[ "$(wc -l < $W/$verb)" -gt 3 ] && sed -i 1,3d $W/$verb
[ -z "$out" ] || printf "$out\n"
[ -z "$err" ] || printf '%s\n' "$err" >&2
exit $code
"""
GONE = (
    1, "", "ERROR: (gcloud.compute.tpus.queued-resources.describe) NOT_FOUND: Resource "
    "'projects/proj/locations/us-east5-b/queuedResources/run1' was not found. This command is "
    "authenticated as a@b.c",
)  # fmt: skip
ACTIVE, WAITING, SUSPENDED, FAILED = ("ACTIVE", "WAITING_FOR_RESOURCES", "SUSPENDED", "FAILED")
LOST = (255, "", "ERROR: (gcloud.compute.tpus.tpu-vm.ssh) [/usr/bin/ssh] exited with code [255].")


def ended(code, log="a line"):
    return (code, f"{log}\\n{watch.ENDED} {code}", "")


class World:
    """What the cloud answers, by verb: a list of states, outputs or (exit code, output, errors);
    the last one is given for ever. And a clock, which only pauses move.
    """

    def __init__(self, folder, monkeypatch):
        self.folder, self.clock, self.pauses = folder, START, []
        (folder / "gcloud").write_text(_GCLOUD.replace("WORLD", str(folder)))
        (folder / "gcloud").chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
        random.seed(0)
        self.answer(created=[datetime.fromtimestamp(START, UTC).strftime("%FT%TZ")])

    def answer(self, **verbs):
        for verb, answers in verbs.items():
            rows = [a if isinstance(a, tuple) else (0, a, "") for a in answers]
            text = "".join(f"{code}\n{out}\n{err}\n" for code, out, err in rows)
            (self.folder / verb).write_text(text)

    def watch(self, *options, interrupt=None):
        """(exit code, calls without looks and notes, what was said)."""
        run = launch("queued", *RUN, *BUCKET, "--tpu", "v5p:4x4x4", "--spot", *options)
        assert run.returncode == 0, run.stderr
        (text,) = [t for path, t in files(run.stdout).items() if path.endswith("watch.json")]
        job = watch.Job(**{**json.loads(text), "logs": str(self.folder / "logs")})
        said, before = io.StringIO(), len(self.pauses)

        def sleep(seconds):
            self.clock += seconds
            self.pauses.append(seconds)
            if len(self.pauses) - before == interrupt:
                raise KeyboardInterrupt

        (self.folder / "calls").write_text("")
        with contextlib.redirect_stdout(said):
            code = watch.Watch(job, sleep, lambda: self.clock).run()
        calls = (self.folder / "calls").read_text().splitlines()
        assert not [call for call in calls if call.startswith("unknown")], calls
        quiet = ("describe", "created", "progress", "read", "write")
        return code, [call for call in calls if call not in quiet], said.getvalue()


@pytest.fixture
def world(tmp_path, monkeypatch):
    return World(tmp_path, monkeypatch)


def saved(step):
    return json.dumps({"starts": [], "saved": {str(n): 1.0 for n in range(0, step + 1, 10)}})


def test_a_slice_is_asked_for_and_deleted_when_training_is_done(world):
    world.answer(describe=[GONE, WAITING, "PROVISIONING", ACTIVE], follow=[ended(0)])
    code, calls, said = world.watch()
    assert (code, calls) == (0, ["create", "start", "follow", "delete"]) and "a line" in said


def test_a_preempted_slice_is_asked_for_again(world):
    states = [GONE, ACTIVE, ACTIVE, "SUSPENDING", SUSPENDED, GONE, ACTIVE]
    world.answer(describe=states, follow=[LOST, ended(75), ended(0)])
    code, calls, _ = world.watch()
    assert code == 0
    assert calls == [
        *["create", "start", "follow"],  # the connection is lost: nothing is started again
        *["follow", "tails", "stop"],  # told to stop
        *["delete", "delete", "create", "start", "follow", "delete"],
    ]


def test_kept_if_asked(world):
    world.answer(describe=[ACTIVE], follow=[ended(0)])
    code, calls, said = world.watch("--keep")
    assert (code, calls) == (0, ["start", "follow"]) and "goes on costing" in said


# ---- No path spends more than the stated retries --------------------------------------------------

REFUSED = (1, "", "ERROR: (gcloud.compute.tpus.queued-resources.create) RESOURCE_EXHAUSTED: Quota")
KEY = (1, "", "ERROR: (gcloud.compute.tpus.tpu-vm.ssh) Permission denied (publickey).")
FAILING = {
    # what fails -> (answers, exit code, the call that is repeated)
    "no quota": (dict(describe=[GONE], create=[REFUSED]), 1, "create"),
    "no permission to ask": (
        dict(describe=[GONE], create=[(1, "", "ERROR: PERMISSION_DENIED: tpu.nodes.create")]),
        1,
        "create",
    ),
    "never given": (dict(describe=[FAILED, GONE] * 9), 1, "delete"),
    "a key that is not accepted": (dict(describe=[ACTIVE], start=[KEY]), 1, "start"),
    "an installation that fails": (
        dict(describe=[ACTIVE], start=[(1, "ERROR: No matching distribution found", "")]),
        1,
        "start",
    ),
    "a bucket that workers may not read": (
        dict(
            describe=[ACTIVE], start=[(1, "", "HTTPError 403: does not have storage.objects.get")]
        ),
        1,
        "start",
    ),
    "a chip that is held": (
        dict(describe=[ACTIVE], start=[(1, "", "held by process")]),
        1,
        "start",
    ),
    "a crash": (dict(describe=[ACTIVE], follow=[ended(1)]), 1, "follow"),
    "a crash by a signal": (dict(describe=[ACTIVE], follow=[ended(139)]), 139, "follow"),
    "out of memory": (dict(describe=[ACTIVE], follow=[ended(137)]), 137, "follow"),
    "JAX's own check": (dict(describe=[ACTIVE], follow=[ended(134)]), 134, "follow"),
    "workers that never meet": (dict(describe=[ACTIVE], follow=[ended(75)]), 75, "follow"),
}


@pytest.mark.parametrize("retries", [0, 3])
@pytest.mark.parametrize("name", FAILING)
def test_what_fails_again_and_again_is_given_up_and_deleted(world, name, retries):
    answers, exit_code, repeated = FAILING[name]
    world.answer(**answers)
    code, calls, said = world.watch("--retries", str(retries))
    assert code == exit_code and "given up" in said
    extra = repeated == "delete"
    assert calls.count(repeated) == retries + 1 + extra, "the first, and the retries"
    assert calls[-1] == "delete" and calls.count("delete") == (retries + 2 if extra else 1)


def test_bad_input_is_not_tried_again(world):
    world.answer(describe=[ACTIVE], follow=[ended(2, "mdmspeech train: no data")])
    code, calls, said = world.watch("--retries", "9")
    assert code == 2 and calls == ["start", "follow", "tails", "stop", "delete"]
    assert "no data" in said


def test_pauses_grow_with_jitter(world):
    world.answer(describe=[ACTIVE], start=[KEY])
    assert world.watch("--retries", "7", "--poll", "10")[0] == 1
    nominal = [min(10 * 2**n, watch.LONGEST_S) for n in range(7)]
    ratios = [pause / wanted for pause, wanted in zip(world.pauses, nominal, strict=True)]
    assert all(0.75 <= ratio <= 1.25 for ratio in ratios) and len(set(ratios)) == 7


def test_a_new_checkpoint_forgives_what_was_before(world):
    """Every other attempt brings one."""
    steps = [saved(10 * (n // 2)) for n in range(1, 9)]
    world.answer(describe=[ACTIVE], follow=[ended(1)] * 6 + [ended(0)], progress=steps)
    code, calls, said = world.watch("--retries", "1")
    assert code == 0 and calls.count("start") == 7 and said.count("not counted") == 3


def test_the_same_checkpoint_forgives_once(world):
    world.answer(describe=[ACTIVE], follow=[ended(1)], progress=[saved(0), saved(10)])
    code, calls, _ = world.watch("--retries", "2")
    assert code == 1 and calls.count("start") == 1 + 3


def test_a_preemption_takes_the_blame_for_lost_workers_only(world):
    # a worker is lost, the next start fails: only then the cloud says that the slice is going
    states = [ACTIVE, ACTIVE, SUSPENDED, GONE] * 3 + [ACTIVE]
    world.answer(describe=states, follow=[ended(75)] * 3 + [ended(0)], start=["", KEY] * 3 + [("")])
    assert world.watch("--retries", "2")[0] == 0
    world.answer(describe=states, follow=[ended(1)], start=[""])
    assert world.watch("--retries", "2")[0] == 1, "crashes stay counted"


# ---- The budget -----------------------------------------------------------------------------------


def test_the_budget_deletes(world):
    world.answer(describe=[ACTIVE], follow=[LOST])
    code, calls, said = world.watch("--max-hours", "5")
    assert code == 75 and calls[-2:] == ["stop", "delete"] and "--max-hours are used up" in said
    assert world.clock - START == pytest.approx(5 * HOUR, abs=2)


def test_a_watcher_that_is_started_again_has_the_same_budget(world):
    world.answer(describe=[ACTIVE], follow=[LOST])
    code, calls, said = world.watch("--max-hours", "5", interrupt=4)
    assert code == 130 and "delete" not in calls and "costs" in said
    world.clock += HOUR  # nobody watches
    code, calls, _ = world.watch("--max-hours", "5")
    assert code == 75 and calls[-2:] == ["stop", "delete"]
    assert world.clock - START == pytest.approx(5 * HOUR, abs=2)


def test_a_watcher_that_comes_too_late_deletes_at_once(world):
    world.answer(describe=[ACTIVE], follow=[LOST])
    world.clock += 6 * HOUR  # since the slice was made, by whoever
    code, calls, _ = world.watch("--max-hours", "5")
    assert code == 75 and calls == ["stop", "delete"]


def test_hours_of_all_slices_are_added_up_and_waiting_is_free(world):
    def at(hours):
        return datetime.fromtimestamp(START + hours * HOUR, UTC).strftime("%FT%T.123456789Z")

    world.answer(describe=[ACTIVE], follow=[LOST])
    world.watch("--max-hours", "5", interrupt=1)
    world.clock = START + 2 * HOUR
    world.answer(describe=[SUSPENDED, GONE, WAITING])
    world.watch("--max-hours", "5", interrupt=3)
    world.clock = START + 30 * HOUR
    world.answer(describe=[ACTIVE], created=[at(29.5)])
    code, _, _ = world.watch("--max-hours", "5")
    assert code == 75
    assert world.clock - START == pytest.approx(32.5 * HOUR, abs=3), "2 h, and 3 h from 29.5 on"
    assert world.watch("--max-hours", "5")[1] == ["delete"], "nothing is left to spend"


def test_when_a_slice_was_made_may_be_told_later(world):
    told = (world.folder / "created").read_text().splitlines()[1]
    world.answer(describe=[ACTIVE], follow=[LOST], created=[(1, "", "ERROR: UNAVAILABLE"), told])
    world.clock += 2 * HOUR
    assert world.watch("--max-hours", "5")[0] == 75
    assert world.clock - START == pytest.approx(5 * HOUR, abs=2)


def test_a_slice_that_was_exchanged_unseen_ends_where_the_next_begins(world):
    world.answer(describe=[ACTIVE], follow=[LOST])
    world.watch("--max-hours", "5", interrupt=1)
    later = datetime.fromtimestamp(START + 3 * HOUR, UTC).strftime("%FT%TZ")
    world.clock = START + 4 * HOUR
    world.answer(created=[later])
    assert world.watch("--max-hours", "5")[0] == 75
    assert world.clock - START == pytest.approx(5 * HOUR, abs=2)


def test_training_done_within_the_budget_does_not_forget_what_it_cost(world):
    world.answer(describe=[ACTIVE], follow=[LOST, ended(0)])
    assert world.watch("--max-hours", "5")[0] == 0
    (row,) = json.loads((world.folder / "slices.json").read_text())
    assert row["made"] == START and row["gone"] == world.clock


@pytest.mark.parametrize(
    "error",
    ["ERROR: HTTPError 403: no access", "ERROR: connection reset", "ERROR: HTTPError 404: The "
     "specified bucket does not exist."],
)  # fmt: skip
def test_nothing_is_begun_while_what_was_spent_cannot_be_read(world, error):
    world.answer(read=[(1, "", error)], describe=[GONE])
    with pytest.raises(SystemExit):
        world.watch()
    assert set((world.folder / "calls").read_text().split()) == {"read"}


def test_a_note_that_could_not_be_written_is_written_later(world):
    world.answer(describe=[ACTIVE], follow=[LOST, LOST, ended(0)], write=[(1, "", "ERROR: x"), ""])
    code, _, said = world.watch()
    assert code == 0 and "could not be noted" in said
    assert json.loads((world.folder / "slices.json").read_text())[0]["gone"] == world.clock


def test_a_slice_that_cannot_be_deleted_is_tried_again_and_told(world):
    world.answer(describe=[ACTIVE], follow=[ended(0)], delete=[(1, "", "ERROR: x")] * 3 + [""])
    assert world.watch()[0:2] == (0, ["start", "follow", *["delete"] * 4])
    world.answer(describe=[ACTIVE], follow=[ended(0)], delete=[(1, "", "ERROR: x")])
    code, calls, said = world.watch()
    assert code == 1 and calls.count("delete") == watch.DELETIONS and "STILL THERE" in said


@pytest.mark.parametrize("seed", range(3))
def test_whatever_happens_the_hours_and_the_attempts_are_bounded(world, seed):
    draw = random.Random(seed)
    unknown = (1, "", "ERROR: UNAVAILABLE")
    states = [*draw.choices([ACTIVE, WAITING, SUSPENDED, unknown], [6, 1, 1, 1], k=40), ACTIVE]
    ends = draw.choices([LOST, *map(ended, (1, 75, 134, 137, 139))], [6, 1, 2, 1, 1, 1], k=30)
    world.answer(
        describe=states,
        follow=[*ends, ended(1)],
        start=[*draw.choices(["", KEY], [5, 1], k=30), ""],
        progress=[saved(10 * (n // 4)) for n in range(12)],
    )
    # every slice is made when it is first seen
    (world.folder / "created").write_text("1\n\nERROR: UNAVAILABLE\n")
    code, calls, _ = world.watch("--max-hours", "10", "--retries", "2", "--poll", "600")
    assert code != 0 and calls[-1] == "delete"
    rows = json.loads((world.folder / "slices.json").read_text())
    assert sum(row["gone"] - row["made"] for row in rows) <= 10 * HOUR + 2
    preempted, forgiven = states.count(SUSPENDED), 3
    assert calls.count("start") <= (2 + 1) * (1 + preempted + forgiven)


# ---- What the cloud says --------------------------------------------------------------------------

UNKNOWN = [
    "ERROR: gcloud crashed (ConnectionError): HTTPSConnectionPool: Max retries exceeded",
    "ERROR: (gcloud.compute.tpus.queued-resources.describe) There was a problem refreshing your "
    "current auth tokens: Reauthentication failed.",
    "ERROR: (gcloud.compute.tpus.queued-resources.describe) You do not currently have an active "
    "account selected.",
    "ERROR: PERMISSION_DENIED: Permission 'tpu.queuedResources.get' denied on resource "
    "'//tpu.googleapis.com/projects/proj/locations/x/queuedResources/run1' (or it may not exist).",
    "ERROR: RESOURCE_EXHAUSTED: Quota exceeded for quota metric 'Read requests'",
    "ERROR: UNAVAILABLE: The service is currently unavailable.",
    "ERROR: NOT_FOUND: Location us-east5-q is not found or access is unauthorized.",
    "ERROR: NOT_FOUND: Resource 'projects/proj/locations/x/queuedResources/run2' was not found.",
    "",
]


@pytest.mark.parametrize("error", UNKNOWN)
def test_an_error_is_not_gone(world, error):
    states = [ACTIVE, (1, "", error), (1, "", error), ACTIVE]
    world.answer(describe=states, follow=[LOST, ended(0)])
    code, calls, said = world.watch()
    assert (code, calls) == (0, ["start", "follow", "follow", "delete"])
    assert said.count("cannot be asked") == 2 and error[:60] in said


def test_while_the_cloud_cannot_be_asked_the_budget_holds(world):
    world.answer(describe=[ACTIVE, (1, "", UNKNOWN[0])], follow=[LOST])
    assert world.watch("--max-hours", "2")[0] == 75
    assert world.clock - START == pytest.approx(2 * HOUR, abs=2)


def test_what_someone_deleted_is_not_asked_for_again(world):
    world.answer(describe=[ACTIVE, GONE], follow=[LOST])
    code, calls, said = world.watch()
    assert code == 75 and "create" not in calls and "not from here" in said


# ---- Logs -----------------------------------------------------------------------------------------


def test_after_a_lost_connection_the_log_goes_on_where_it_was(world):
    follow = [(255, "one\\ntwo\\nthree", ""), (255, "", "Connection refused"), ended(0, "four")]
    world.answer(describe=[ACTIVE], follow=follow)
    code, _, said = world.watch()
    asked = [
        line.split("tail -n +")[1].split()[0] for line in world.folder.joinpath("followed").open()
    ]
    assert code == 0 and asked == ["1", "4", "4"]
    assert [w for w in said.split() if w in ("one", "two", "three", "four")] == [
        "one", "two", "three", "four",
    ]  # fmt: skip
    (log,) = (world.folder / "logs").iterdir()
    assert log.read_text() == said


def test_logs_of_earlier_watchers_are_kept_but_not_for_ever(world):
    (world.folder / "logs").mkdir()
    for day in range(10, 30):
        (world.folder / "logs" / f"202511{day}T000000Z.log").write_text("old")
    world.answer(describe=[ACTIVE], follow=[ended(0)])
    world.watch()
    kept = sorted(path.name for path in (world.folder / "logs").iterdir())
    assert len(kept) == 10 and kept[0] == "20251121T000000Z.log"


def test_a_command_that_hangs_is_ended(world, monkeypatch):
    monkeypatch.setattr(watch, "COMMAND_S", 0.3)
    text = (world.folder / "gcloud").read_text()
    (world.folder / "gcloud").write_text(text.replace("verb=start", "sleep 30 & wait"))
    world.answer(describe=[ACTIVE])
    code, calls, _ = world.watch("--retries", "0")
    assert code == 1 and calls == ["delete"]


def test_a_log_that_is_shown_when_the_budget_ends_is_left(world):
    text = (world.folder / "gcloud").read_text()
    hang = 'verb=follow; echo follow >> $W/calls; echo "a line"; sleep 30 & wait'
    (world.folder / "gcloud").write_text(text.replace("verb=follow", hang))
    world.answer(describe=[ACTIVE])
    code, calls, said = world.watch("--max-hours", "0.0002", "--poll", "1")
    assert code == 75 and calls == ["start", "follow", "stop", "delete"] and "a line" in said


@pytest.mark.parametrize(("name", "exit_code"), [("queued", 0), ("tpu_vm", 0), ("queued", 2)])
def test_the_whole_script_runs(world, name, exit_code):
    """As with --go, up to the cloud."""
    text = (world.folder / "gcloud").read_text()
    text = text.replace('"tpu-vm describe"*)', '"tpu-vm describe"*createTime*)')
    text = text.replace("queued-resources describe", "format=value(state")
    text = text.replace("queued-resources delete", "delete run1")
    (world.folder / "gcloud").write_text(text)
    (world.folder / "git").write_text("#!/bin/bash\nprintf 'LICENSE\\0'\n")
    (world.folder / "git").chmod(0o755)
    world.answer(describe=["ACTIVE" if name == "queued" else "READY"], follow=[ended(exit_code)])
    options = ["--tpu", "v5e:2x4", "--poll", "1", "--go", "--no-preflight"]
    run = subprocess.run(
        [sys.executable, ROOT / "launch" / f"{name}.py", *RUN, *BUCKET, *options],
        env={"PATH": f"{world.folder}:/usr/bin:/bin", "HOME": str(world.folder)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == exit_code, run.stderr
    assert "a line" in run.stdout and "no preflight" in run.stderr
    calls = (world.folder / "calls").read_text().splitlines()
    assert calls[0].startswith("unknown: storage cp") and "code.tgz" in calls[0]
    told = [call for call in calls if call in ("start", "follow", "tails", "stop", "delete")]
    assert told == ["start", "follow", *["tails", "stop"] * (exit_code > 0), "delete"]
