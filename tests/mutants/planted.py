"""Faults planted on purpose, one at a time, each of which a named test must notice: `make mutants`.

`tests/mutants/*.toml` list them, a file a room: what is wrong (`name`), `file`, the exact text to
`find` there (once) and to `replace`, and the `tests` of which at least one must fail with the
fault, and all pass without it. What does not count as noticed: a module that no longer imports, a
test that cannot be collected, a name that does not exist, and a run that never ends; such a fault
is reported as a bad one. A test that fails for any other reason does.

Each worker has a copy of the tree in a temporary folder and a process that has imported JAX, but
nothing of ours; it forks for every fault, so that a fault costs its tests and not the imports. All
share one cache of compiled programs: most of what is compiled is the same with a fault as without.
"""

import argparse
import ast
import concurrent.futures
import configparser
import contextlib
import dataclasses
import importlib
import importlib.util
import json
import os
import queue
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
PRELOAD = ("jax", "jax.numpy", "flax.linen", "optax", "ml_collections", "pytest", "scipy.signal")
LIMIT = 300  # seconds of processor time that a fault's tests may take
FIELDS = {"name", "file", "find", "replace", "tests"}
CAUGHT, SURVIVED, BAD = "caught", "SURVIVED", "BAD"
_SHARED = 2**20  # bytes: larger files are linked into a worker's tree, not copied


@dataclasses.dataclass(frozen=True)
class Mutant:
    """One planted fault, and the list it is in."""

    room: str
    name: str
    file: str
    find: str
    replace: str
    tests: tuple[str, ...]

    def faulty(self, root: Path) -> str:
        """The text of the file with the fault."""
        return (root / self.file).read_text().replace(self.find, self.replace)

    @property
    def module(self) -> str:
        """The dotted name of what is broken; "" if it is not a module of the package."""
        path = Path(self.file)
        if path.parts[0] != "mdmspeech" or path.suffix != ".py" or path.name == "__main__.py":
            return ""
        return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def read(folder: Path) -> list[Mutant]:
    """All faults of a folder of lists. ValueError names an entry that is not well-formed."""
    found = []
    for path in sorted(folder.glob("*.toml")):
        listed = tomllib.loads(path.read_text())
        if set(listed) != {"mutant"}:
            raise ValueError(f"{path.name}: give [[mutant]] entries and nothing else")
        for number, entry in enumerate(listed["mutant"], start=1):
            if set(entry) != FIELDS:
                raise ValueError(
                    f"{path.name}, entry {number}: the fields are "
                    f"{', '.join(sorted(FIELDS))}, not {', '.join(sorted(entry))}"
                )
            found.append(Mutant(path.stem, **{**entry, "tests": tuple(entry["tests"])}))
    return found


def faults_of(mutant: Mutant, root: Path) -> list[str]:
    """What is wrong with the entry itself: an empty list if it can be planted."""
    wrong = []
    path = root / mutant.file
    if not path.is_file():
        return [f"{mutant.file} does not exist"]
    times = path.read_text().count(mutant.find) if mutant.find else 0
    if times != 1:
        wrong.append(f"the text to find stands {times} times in {mutant.file}, not once")
    if mutant.find == mutant.replace:
        wrong.append("the replacement is the text itself")
    if path.suffix == ".py":
        try:
            before, after = (
                ast.dump(ast.parse(path.read_text())),
                ast.dump(ast.parse(mutant.faulty(root))),
            )
        except SyntaxError as error:
            wrong.append(f"the fault is no Python: {error.msg}, line {error.lineno}")
        else:
            if before == after:
                wrong.append("the fault changes nothing but comments or spaces")
    if not mutant.tests:
        wrong.append("it names no test")
    return wrong + [f"there is no test {test}" for test in mutant.tests if not _exists(root, test)]


def _exists(root: Path, test: str) -> bool:
    file, *names = test.split("::")
    if not (root / file).is_file() or not names:
        return False
    body = ast.parse((root / file).read_text()).body
    for name in names:
        inside = [
            node
            for node in body
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name.split("[")[0]
        ]
        if not inside:
            return False
        body = inside[0].body
    return True


# ---- In a worker --------------------------------------------------------------------------------


class _Watch:
    """A pytest plugin: imports the module with the fault once the tests' environment stands, and
    notes what fails and why.
    """

    def __init__(self, module: str, tree: Path):
        self.module, self.tree = module, tree
        self.failed: list[str] = []
        self.bad = ""
        self.passed = 0

    def pytest_collection(self, session):
        if not self.module:
            return
        try:
            found = Path(importlib.import_module(self.module).__file__ or "")
        except Exception as error:
            self.bad = f"{self.module} does not import: {type(error).__name__}: {error}"
            raise session.Interrupted(self.bad) from None
        assert found.is_relative_to(self.tree), f"{found} was imported, which is not in the copy"

    def pytest_collectreport(self, report):
        if report.failed:
            self.bad = self.bad or f"{report.nodeid} cannot be collected"

    def pytest_runtest_makereport(self, item, call):
        if call.excinfo is not None and issubclass(call.excinfo.type, NameError | SyntaxError):
            self.bad = f"{call.excinfo.typename}: {call.excinfo.value}"

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self.failed.append(report.nodeid)
        self.passed += report.when == "call" and report.passed


def work(cache: str, preload: Sequence[str]) -> None:
    """The loop of a worker, which runs in its copy of the tree: a job a line on standard input, a
    result a line on standard output.
    """
    tree = Path.cwd()
    os.environ["JAX_COMPILATION_CACHE_DIR"] = cache
    settings = tree / "tests" / "conftest.py"
    if settings.exists():  # sets the environment that the tests want, before JAX reads it
        spec = importlib.util.spec_from_file_location("settings_of_the_tests", settings)
        assert spec is not None and spec.loader is not None
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    for name in preload:
        importlib.import_module(name)
    for line in sys.stdin:
        print(json.dumps(_fork(json.loads(line), tree)), flush=True)


def _fork(job: dict, tree: Path) -> dict:
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        resource.setrlimit(resource.RLIMIT_CPU, (job["limit"], job["limit"] + 5))
        _run_tests(job, tree)
    waited, status = 0.0, 0
    while waited < 10 * job["limit"]:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        time.sleep(0.05)
        waited += 0.05
    else:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    out = Path(job["out"])
    if out.exists():
        return json.loads(out.read_text())
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL)
    bad = f"it never ended ({job['limit']} s of processor time)" if killed else "the process died"
    return {"bad": bad, "failed": [], "passed": 0}


def _marks() -> str:
    """Which tests watch: those of `make test`, and the slow ones that it leaves to `make test-slow`."""
    settings = configparser.RawConfigParser()
    settings.read(ROOT / "setup.cfg")
    options = shlex.split(settings["tool:pytest"]["addopts"])
    return options[options.index("-m") + 1].replace("not slow and ", "")


def _run_tests(job: dict, tree: Path) -> None:
    """In the forked process, which ends here."""
    import pytest

    log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    watch = _Watch(job["module"], tree)
    first = ["-x"] if job["first"] else []
    code = pytest.main(
        [
            "-q",
            *first,
            "-m",
            _marks(),
            "-p",
            "no:cacheprovider",
            "--rootdir",
            str(tree),
            *job["tests"],
        ],
        plugins=[watch],
    )
    bad = watch.bad or (
        ""
        if code in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
        else f"pytest ended with {code}"
    )
    Path(job["out"]).write_text(
        json.dumps({"bad": bad, "failed": watch.failed, "passed": watch.passed})
    )
    sys.stdout.flush()
    os._exit(0)


# ---- Around them --------------------------------------------------------------------------------


def files_of(root: Path) -> list[str]:
    """What a copy of the tree needs: the files that git tracks, and new ones that it does not ignore."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"],
        cwd=root,
        check=True,
        capture_output=True,
        text=True,
    )
    return [name for name in listed.stdout.split("\0") if name and (root / name).is_file()]


class Worker:
    """A copy of the tree and the process that runs tests in it."""

    def __init__(self, root: Path, folder: Path, files: Iterable[str], preload: Sequence[str]):
        self.root, self.folder, self.tree = root, folder, folder / "tree"
        for name in files:
            target = self.tree / name
            target.parent.mkdir(parents=True, exist_ok=True)
            _link_or_copy(root / name, target)
        env = os.environ | {"PYTHONPATH": str(self.tree), "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, __file__, "--worker", str(folder.parent / "compiled"), *preload]
        self.process = subprocess.Popen(
            command,
            cwd=self.tree,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(
        self, tests: Sequence[str], mutant: Mutant | None = None, limit: int = LIMIT
    ) -> tuple[dict, float, str]:
        """(what the tests did, seconds, their output), with the fault if one is given."""
        out, log = self.folder / "out.json", self.folder / "log.txt"
        out.unlink(missing_ok=True)
        began = time.monotonic()
        if mutant:
            path = self.tree / mutant.file
            path.unlink()  # it may be a link
            path.write_text(mutant.faulty(self.root))
        job = {
            "tests": list(tests),
            "module": mutant.module if mutant else "",
            "first": bool(mutant),
            "limit": limit,
        }
        assert self.process.stdin is not None and self.process.stdout is not None
        print(
            json.dumps(job | {"out": str(out), "log": str(log)}),
            file=self.process.stdin,
            flush=True,
        )
        answer = self.process.stdout.readline()
        if mutant:
            shutil.copy2(self.root / mutant.file, path)
        if not answer:
            raise RuntimeError(f"a worker died; its last output is in {log}")
        return (
            json.loads(answer),
            time.monotonic() - began,
            log.read_text(errors="replace") if log.exists() else "",
        )

    def close(self) -> None:
        """Ends the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def _link_or_copy(source: Path, target: Path) -> None:
    if source.stat().st_size > _SHARED:
        with contextlib.suppress(OSError):
            os.link(source, target)
            return
    shutil.copy2(source, target)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What became of a fault: CAUGHT (`why`: by which test), SURVIVED or BAD (`why`: the reason)."""

    mutant: Mutant
    outcome: str
    why: str
    seconds: float


def judge(
    mutants: Sequence[Mutant],
    root: Path,
    files: Iterable[str],
    workers: int = 2,
    preload: Sequence[str] = PRELOAD,
    limit: int = LIMIT,
) -> list[Verdict]:
    """Plants every fault and says what became of it, with a line of progress each."""
    files = list(files)
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        idle: queue.Queue[Worker] = queue.Queue()
        everyone = [Worker(root, Path(folder) / str(n), files, preload) for n in range(workers)]
        for worker in everyone:
            idle.put(worker)

        def on_one(tests, mutant=None):
            worker = idle.get()
            try:
                return worker.run(tests, mutant, limit)
            finally:
                idle.put(worker)

        try:
            with concurrent.futures.ThreadPoolExecutor(workers) as pool:
                failing = _without_faults(mutants, on_one, pool)
                verdicts = []
                ready = {
                    pool.submit(on_one, m.tests, m): m
                    for m in mutants
                    if not set(m.tests) & set(failing)
                }
                for future in concurrent.futures.as_completed(ready):
                    verdicts.append(_verdict(ready[future], *future.result()))
                    _say(verdicts[-1], f"{len(verdicts)}/{len(ready)}")
        finally:
            for worker in everyone:
                worker.close()
    for mutant in mutants:
        for test in sorted(set(mutant.tests) & set(failing))[:1]:
            verdicts.append(Verdict(mutant, BAD, f"{test} fails without the fault", 0.0))
            _say(verdicts[-1], "")
            print(failing[test], flush=True)
    return sorted(verdicts, key=lambda v: mutants.index(v.mutant))


def _without_faults(mutants: Sequence[Mutant], on_one, pool) -> dict[str, str]:
    """{test that fails without any fault: the end of its output}."""
    by_file: dict[str, set[str]] = defaultdict(set)
    for test in (test for mutant in mutants for test in mutant.tests):
        by_file[test.split("::")[0]].add(test)
    began, failing = time.monotonic(), {}
    ready = {pool.submit(on_one, sorted(tests)): tests for tests in by_file.values()}
    for future in concurrent.futures.as_completed(ready):
        done, _, log = future.result()
        for test in ready[future]:
            if done["bad"] or any(
                failed.split("[")[0] == test.split("[")[0] for failed in done["failed"]
            ):
                failing[test] = log[-3000:]
    tests = sum(map(len, by_file.values()))
    print(
        (
            f"{tests} tests of {len(by_file)} files without faults: {len(failing)} "
            f"fail, {time.monotonic() - began:.0f} s"
        ),
        flush=True,
    )
    return failing


def _verdict(mutant: Mutant, done: dict, seconds: float, log: str) -> Verdict:
    if done["bad"]:
        return Verdict(mutant, BAD, done["bad"], seconds)
    if done["failed"]:
        return Verdict(mutant, CAUGHT, done["failed"][0], seconds)
    return Verdict(mutant, SURVIVED, f"{done['passed']} tests pass", seconds)


def _say(verdict: Verdict, progress: str) -> None:
    print(
        (
            f"{progress:>7} {verdict.outcome:8} {verdict.seconds:5.1f} s  "
            f"{verdict.mutant.room}: {verdict.mutant.name} <- {verdict.why}"
        ),
        flush=True,
    )


def table(verdicts: Sequence[Verdict]) -> str:
    """Fault -> the test that noticed it, as a Markdown table."""
    rows = [
        f"| {v.mutant.room} | {v.mutant.name} | {v.outcome}: {v.why} | {v.seconds:.1f} |"
        for v in verdicts
    ]
    return "\n".join(["| room | fault | outcome | s |", "|---|---|---|---|", *rows])


def main(arguments: Sequence[str] | None = None) -> int:
    """0 if every fault is caught."""
    parser = argparse.ArgumentParser(description="plant faults, see whether tests notice")
    parser.add_argument(
        "--only", metavar="TEXT", help="faults whose name, room or file has this text"
    )
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--table", metavar="FILE", help="write the table there, as Markdown")
    options = parser.parse_args(arguments)
    began, mutants = time.monotonic(), read(ROOT / "tests" / "mutants")
    if options.only:
        mutants = [
            m
            for m in mutants
            if options.only in m.name or options.only in m.file or options.only == m.room
        ]
        if not mutants:
            parser.error(f"no fault's name, room or file has {options.only!r}")
    wrong = [f"{m.room}: {m.name}: {fault}" for m in mutants for fault in faults_of(m, ROOT)]
    if wrong:
        print(*wrong, sep="\n", file=sys.stderr)
        return 1
    verdicts = judge(mutants, ROOT, files_of(ROOT), options.workers)
    counts = Counter(v.outcome for v in verdicts)
    text = (
        f"{table(verdicts)}\n\n{counts[CAUGHT]} of {len(verdicts)} planted faults "
        f"are caught; {time.monotonic() - began:.0f} s"
    )
    print(text)
    if options.table:
        Path(options.table).write_text(text + "\n")
    return 0 if counts[CAUGHT] == len(verdicts) else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        work(sys.argv[2], sys.argv[3:])
    else:
        sys.exit(main())
