"""The manifest against the API: its fields (from JobSet's own definition), and what becomes of each way
a pod can end, by the rules as the controllers read them.
"""

import json
import re
from pathlib import Path

import common
import pods
import pytest
import yaml
from dry_run import BUCKET, RUN, files, launch

SCHEMA = json.loads((Path(__file__).parent / "jobset_schema.json").read_text())["schema"]
KINDS = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool}
SHAPES = ["v5e:4x8", "v5e:16x16", "v5p:4x4x8"]
OPTIONS = [
    [],
    ["--spot"],
    ["--slices", "3", "--queue", "q", "--service-account", "s"],
    ["--flex-start", "--queue", "q", "--max-hours", "0.5"],
    ["--reservation", "mine"],
]


def jobset(*options):
    image = ["--image", "registry/x:1", "--cluster", "c1"]
    run = launch("gke", *RUN, *BUCKET, *image, *options)
    assert run.returncode == 0, run.stderr
    (text,) = [text for path, text in files(run.stdout).items() if path.endswith(".yaml")]
    return yaml.safe_load(text)


def faults(value, schema, where=""):
    """What of a value the definition does not have, or has otherwise."""
    if schema.get("x-kubernetes-int-or-string"):
        return [] if isinstance(value, (int, str)) else [f"{where}: {value!r}"]
    kind = KINDS[schema["type"]]
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        return [f"{where} is {value!r}, no {schema['type']}"]
    if "enum" in schema and value not in schema["enum"]:
        return [f"{where} is {value!r}, none of {schema['enum']}"]
    if isinstance(value, list):
        return [f for n, v in enumerate(value) for f in faults(v, schema["items"], f"{where}[{n}]")]
    if not isinstance(value, dict) or not {"properties", "additionalProperties"} & set(schema):
        return []
    known, other = schema.get("properties", {}), schema.get("additionalProperties")
    found = [
        f"{where}.{name} is missing" for name in schema.get("required", ()) if name not in value
    ]
    for name, item in value.items():
        inside = known.get(name, other)
        found += faults(item, inside, f"{where}.{name}") if inside else [f"{where}.{name} unknown"]
    return found


@pytest.mark.parametrize("tpu", SHAPES)
@pytest.mark.parametrize("options", OPTIONS)
def test_the_manifest_has_the_fields_of_the_definition(tpu, options):
    assert faults(jobset("--tpu", tpu, *options), SCHEMA) == []


def job_of(manifest):
    return manifest["spec"]["replicatedJobs"][0]["template"]["spec"]


def change(manifest, path, value):
    *folders, last = path
    for name in folders:
        manifest = manifest[name]
    manifest[last] = value


OVERDUE = "overdue"
JOB = ("spec", "replicatedJobs", 0, "template", "spec")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ((*JOB, "podFailurePolicies"), {}),
        ((*JOB, "template", "spec", "podFailurePolicy"), {"rules": []}),  # not of the pod
        ((*JOB, "podFailurePolicy", "rules", 0, "action"), 3),
        ((*JOB, "podFailurePolicy", "rules", 0, "onExitCode"), {}),
        ((*JOB, "podFailurePolicy", "rules", 0, "onExitCodes", "values"), ["2"]),
        ((*JOB, "podFailurePolicy", "rules", 1, "onPodConditions", 0), {"type": "x"}),
        (("spec", "failurePolicy", "rules", 0, "action"), "FailJob"),
        (("spec", "failurePolicy", "rules", 0, "name"), None),
        (("spec", "failurePolicy", "maxRestart"), 3),
        ((*JOB, "template", "spec", "terminationGracePeriod"), 15),
    ],
)
def test_the_definition_finds_what_is_wrong(path, value):
    manifest = jobset("--tpu", "v5e:4x4")
    change(manifest, path, value)
    assert len(faults(manifest, SCHEMA)) == 1


def test_what_the_api_asks_for_besides():
    """In words of the fields' descriptions and of JobSet's webhook."""
    manifest = jobset("--tpu", "v5e:4x4", "--slices", "2")
    job, policy = job_of(manifest), manifest["spec"]["failurePolicy"]
    pod, rules = job["template"]["spec"], job["podFailurePolicy"]["rules"]
    assert pod["restartPolicy"] == "Never", "a podFailurePolicy needs it"
    assert len(rules) <= 20
    for rule in rules:
        assert ("onExitCodes" in rule) != ("onPodConditions" in rule), "one of them, not both"
        if codes := rule.get("onExitCodes"):
            values = codes["values"]
            assert values == sorted(set(values)) and 0 not in values
            assert codes["containerName"] in {one["name"] for one in pod["containers"]}
    names = [rule["name"] for rule in policy["rules"]]
    assert len(set(names)) == len(names)
    for rule in policy["rules"]:
        assert re.fullmatch(r"[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?", rule["name"])
        assert set(rule["onJobFailureReasons"]) <= {
            "PodFailurePolicy", "BackoffLimitExceeded", "DeadlineExceeded",
        }  # fmt: skip


def outcome(manifest, code, disrupted=False):
    """What becomes of the set when a pod ends so, as the job's controller and JobSet's decide
    (kubernetes pkg/controller/job/pod_failure_policy.go; jobset pkg/controllers/failure_policy.go).
    code: OVERDUE if the job's deadline ends it.
    """
    if code == 0:
        return "done"
    if code == OVERDUE:
        return by_rules(
            manifest, "DeadlineExceeded", "Job was active longer than specified deadline"
        )
    job, reason, message = job_of(manifest), "BackoffLimitExceeded", "Job has reached the limit"
    assert job["backoffLimit"] == 0
    for index, rule in enumerate(job["podFailurePolicy"]["rules"]):
        codes = rule.get("onExitCodes", {"operator": "In", "values": []})
        hit = (code in codes["values"]) == (codes["operator"] == "In")
        if hit or ("onPodConditions" in rule and disrupted):
            assert rule["action"] == "FailJob"
            what = f"failed with exit code {code}" if hit else "has condition DisruptionTarget"
            reason = "PodFailurePolicy"
            message = (
                f"Container train for pod default/x {what} matching FailJob rule at index {index}"
            )
            break
    return by_rules(manifest, reason, message)


def by_rules(manifest, reason, message):
    """The set's first rule that fits decides."""
    for rule in manifest["spec"]["failurePolicy"]["rules"]:
        patterns = rule.get("onJobFailureMessagePatterns", [""])
        if reason in rule["onJobFailureReasons"] and any(re.search(p, message) for p in patterns):
            return rule["action"]
    return "RestartJobSet"


@pytest.mark.parametrize(
    ("code", "disrupted", "expected"),
    [
        (0, False, "done"),
        (OVERDUE, False, "FailJobSet"),
        (OVERDUE, True, "FailJobSet"),
        (common.BAD_INPUT, False, "FailJobSet"),
        (common.BAD_INPUT, True, "FailJobSet"),
        (common.STOPPED, False, "RestartJobSetAndIgnoreMaxRestarts"),
        (common.STOPPED, True, "RestartJobSetAndIgnoreMaxRestarts"),
        (137, True, "RestartJobSetAndIgnoreMaxRestarts"),  # its time to save was too short
        (143, True, "RestartJobSetAndIgnoreMaxRestarts"),
        (137, False, "RestartJobSet"),  # out of memory
        (134, False, "RestartJobSet"),
        (1, False, "RestartJobSet"),
        (127, False, "RestartJobSet"),
        (139, False, "RestartJobSet"),
    ],
)
def test_what_becomes_of_the_set(code, disrupted, expected):
    assert outcome(jobset("--tpu", "v5e:4x4"), code, disrupted) == expected


@pytest.mark.parametrize(("options", "seconds"), [([], pods.GRACE_S), (["--spot"], 15)])
def test_spot_pods_are_not_promised_more_than_they_get(options, seconds):
    pod = job_of(jobset("--tpu", "v5e:4x4", *options))["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] == seconds
    image = ["--image", "registry/x:1", "--cluster", "c1", "--tpu", "v5e:4x4"]
    assert (
        f"--termination-grace-period-seconds={seconds} "
        in launch("xpk", *RUN, *BUCKET, *image, *options).stdout
    )
