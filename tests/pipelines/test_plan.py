"""What a run would do: command lines, folders, environment."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from nuclei_segmentation.pipelines import Container, Definition, Input, Model, Operator, Output, Pipeline
from nuclei_segmentation.pipelines.__main__ import main
from nuclei_segmentation.pipelines.job_folder import Folders
from nuclei_segmentation.pipelines.language.model import MIB, Connection, Requests, Service
from nuclei_segmentation.pipelines.project import MAIN
from nuclei_segmentation.pipelines.runner.options import Engine, Options
from nuclei_segmentation.pipelines.runner.plan import plan
from nuclei_segmentation.pipelines.runner.shell import quoted
from nuclei_segmentation.pipelines.runner.sizing_tool_commands import operator_step
from nuclei_segmentation.shared.clara.sizing_tool import TRITON_GRPC_VARIABLE, TRITON_HTTP_VARIABLES
from nuclei_segmentation.shared.errors import UsageError

ROOT = Path(__file__).parents[2]
TRITON = (*TRITON_HTTP_VARIABLES, TRITON_GRPC_VARIABLE)
IN, OUT = Path("/data/in"), Path("/data/out")
JOB = "/data/out/.job"
UNSET = [word for name in (*TRITON, "NUCLEI_STORE_SHM", "NUCLEI_SHARD") for word in ("-u", name)]
CONFINED = (
    "--cap-drop all --security-opt no-new-privileges --pids-limit 2048 --read-only "
    "--tmpfs /tmp:rw,nosuid,nodev,mode=1777,size=1g --tmpfs /var/tmp:rw,nosuid,nodev,mode=1777,size=1g"
)
PLAIN = Container("image", "tag")
IMAGE = Container("nuclei/load", "1", ("/bin/bash", "-c", "python -u /app/main.py load -w 2"))
OURS = Operator("load", IMAGE, (Input(None, "", "", "/input"),), (Output("", "/output"),))


def definition(name: str = "nuclei-segmentation", **values: str) -> Pipeline:
    return Definition(ROOT / "pipelines" / f"{name}.yaml").resolve(values)


def options(engine: Engine = "process", **more: object) -> Options:
    return replace(Options(IN, OUT, engine), **more)


def of(*operators: Operator) -> Pipeline:
    return Pipeline("p", "0.4.0", "Clara", operators)


def running(*command: str) -> Operator:
    return replace(OURS, container=replace(IMAGE, command=command))


def test_the_lines_for_processes() -> None:
    made = plan(definition("nuclei-segmentation-embedded", WORKERS="3"), options())
    start = [
        "env",
        *UNSET,
        "NVIDIA_CLARA_NOSYNCLOCK=TRUE",
        f"NUCLEI_RUN_ID={made.run}",
        sys.executable,
        "-u",
        str(MAIN),
    ]
    assert [list(one.line) for one in made.steps] == [
        [*start, "load", "-w", "3", "-t", "256", "-o", "0", "--input-path", str(IN),
         "--output-path", f"{JOB}/data/load", "--config-path", f"{JOB}/config"],
        [*start, "filter", "-w", "3", "-m", "segmentation_unet_nuclei", "--input-path", f"{JOB}/inputs/filter",
         "--output-path", f"{JOB}/data/filter", "--config-path", f"{JOB}/config"],
        [*start, "stitch", "-w", "3", "--input-path", f"{JOB}/inputs/stitch",
         "--output-path", f"{JOB}/data/stitch", "--config-path", f"{JOB}/config"],
    ]  # fmt: skip
    assert [one.upstream for one in made.steps] == [(), ("load",), ("load", "filter")]
    assert made.steps[2].links == (
        (f"{JOB}/inputs/stitch/slide", str(IN)),
        (f"{JOB}/inputs/stitch/tiles", f"{JOB}/data/load"),
        (f"{JOB}/inputs/stitch/masks", f"{JOB}/data/filter"),
    )
    assert made.results == ((f"{JOB}/data/stitch", str(OUT)),)
    assert made.remarks == ()


def test_a_server_for_processes() -> None:
    given = {"NVIDIA_CLARA_TRTISURI": "gpu:8000"}
    made = plan(definition(), options(environment=given))
    load, infer, _ = (one.line for one in made.steps)
    assert "NVIDIA_CLARA_TRTISURI=gpu:8000" in infer
    assert "NVIDIA_CLARA_TRTISURI" in load, "who uses no service must not see the address: it is unset"
    assert not made.remarks
    (remark,) = plan(definition(), options()).remarks
    assert remark.startswith(
        "filter: runs inference by itself: NVIDIA_CLARA_TRTISURI (host:port of a Triton server) is not set"
    )


def test_models_for_processes() -> None:
    made = plan(definition("nuclei-segmentation-fastio"), options(environment={"NVIDIA_TRITON_HTTPURI": "a:1"}))
    assert [name for name in TRITON if f"{name}=a:1" in made.steps[1].line] == list(TRITON[:3])


@pytest.mark.parametrize(
    ("operator", "message"),
    [
        (replace(OURS, container=Container("other/load", "1")), "not from this project"),
        (replace(OURS, container=Container("nuclei/other", "1")), "not from this project"),
        (running("/bin/bash", "-c", "python -u /app/main.py load; id"), "shell"),
        (running("/bin/bash", "-c", "python -u /app/main.py load $X"), "shell"),
        (running("/bin/bash", "-c", "python '"), "cannot be read"),
        (running("/bin/bash", "-c", "rm -r /app/main.py"), "is not `python"),
        (running("python", "-c", "1"), "is not `python"),
        (replace(OURS, outputs=()), "but no output has that path"),
        (replace(OURS, inputs=(Input(None, "", "", "/elsewhere/a"),)), "not directly inside /input"),
    ],
)  # fmt: skip
def test_what_is_no_process(operator: Operator, message: str) -> None:
    with pytest.raises(UsageError, match=r"^load: .*use --engine podman or docker$") as caught:
        plan(of(operator), options())
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "command", [(), ("python", "/app/main.py", "load"), ("bash", "-c", "python3 -u /app/main.py 'load'")]
)
def test_ways_to_write_a_command(command: tuple[str, ...]) -> None:
    operator = replace(OURS, container=Container("ghcr.io/x/nuclei/load", "1", command))
    line = plan(of(operator), options()).steps[0].line
    assert line[line.index(str(MAIN)) + 1 :][:2] == ("load", "--input-path")


def test_folders_that_the_command_names() -> None:
    command = ("python", "/app/main.py", "load", "--input-path", "/a", "--output-path=/b")
    operator = replace(
        OURS, container=replace(IMAGE, command=command),
        inputs=(Input(None, "", "", "/a"),), outputs=(Output("", "/b"),),
    )  # fmt: skip
    line = plan(of(operator), options()).steps[0].line
    assert line[-7:] == (
        "load", "--input-path", str(IN), "--output-path", f"{JOB}/data/load", "--config-path", f"{JOB}/config",
    )  # fmt: skip


HOSTILE = (
    "LD_PRELOAD", "LD_AUDIT", "PYTHONPATH", "PATH", "HOME", "OPENCV_CORE_PLUGIN_PATH", "OPENCV_PARALLEL_BACKEND",
    "OPENCV_VIDEOIO_PLUGIN_PATH", "OPENSSL_CONF", "GIO_EXTRA_MODULES", "GDK_PIXBUF_MODULE_FILE", "OMP_TOOL_LIBRARIES",
    "ORT_DYLIB_PATH", "GLIBC_TUNABLES", "TMPDIR", "SSL_CERT_FILE", "http_proxy", "NUCLEI_COMMIT", "NUCLEI_SOMETHING",
    "NVIDIA_CLARA_SOMETHING", "nuclei_run_id", "NUCLEI_RUN_ID ", "TZ", "V",
)  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_process_gets_no_variable_that_the_operators_do_not_read(name: str) -> None:
    with pytest.raises(
        UsageError, match=r"^load: cannot run as a process: its variable .* use --engine podman"
    ) as caught:
        plan(of(replace(OURS, variables={name: "x"})), options())
    assert repr(name) in str(caught.value)
    for engine in ("docker", "podman"):
        (step,) = plan(of(replace(OURS, variables={name: "x"})), options(engine)).steps
        assert f"{name}=x" in step.line, "a container may read what it likes"


def test_what_the_operators_read_may_be_set() -> None:
    own = {"NUCLEI_SHARD": "0/2", "NVIDIA_CLARA_NOSYNCLOCK": "1", "NUCLEI_STORE_SHM": "FALSE", "NUCLEI_RUN_ID": "r"}
    (step,) = plan(of(replace(OURS, variables=own)), options()).steps
    assert {f"{name}={value}" for name, value in own.items()} <= set(step.line)


@pytest.mark.parametrize("name", ["LD_PRELOAD", "PYTHONPATH", "OPENCV_CORE_PLUGIN_PATH", "ADDRESS"])
def test_a_process_gets_no_other_variable_by_way_of_a_connection(name: str) -> None:
    served = replace(OURS, services=(Service("s", PLAIN, (Connection("http", name, 8000),)),))
    for more in ({}, {"tritonserver": "/bin/tritonserver", "models": Path("/m")}, {"environment": {name: "a:1"}}):
        with pytest.raises(UsageError, match=r"its connection .* is none of"):
            plan(of(served), options(**more))
    assert f"{name}=localhost:8000" in plan(of(served), options("docker")).steps[0].line


EVIL = "evil.example:8000"


@pytest.mark.parametrize("name", TRITON)
@pytest.mark.parametrize("engine", ["process", "podman", "docker"])
@pytest.mark.parametrize("how", ["nothing", "caller", "models", "service", "image", "tritonserver"])
def test_no_definition_says_where_a_slide_is_sent(name: str, engine: Engine, how: str) -> None:
    operator = replace(OURS, variables={name: EVIL})
    more: dict[str, object] = {"models": Path("/m")}
    if how in ("caller", "models"):
        more["environment"] = {"NVIDIA_CLARA_TRTISURI": "gpu:8000"}
    if how in ("models", "image", "tritonserver"):
        operator = replace(operator, models=(Model("m"),))
    if how == "service":
        operator = replace(operator, services=(Service("s", PLAIN, (Connection("http", "CLARA_TRITON_URI", 8000),)),))
    if how == "image" and engine != "process":
        more["triton_image"] = "triton:1"
    if how == "tritonserver":
        more["tritonserver"] = "/bin/tritonserver"
    with pytest.raises(UsageError, match=f"{name}, the address of a server"):
        plan(of(operator), options(engine, **more))


def test_the_address_that_a_run_gives_anyway_may_be_repeated() -> None:
    operator = replace(OURS, variables={TRITON[0]: "localhost:8000"})
    served = replace(operator, services=(Service("s", PLAIN, (Connection("http", TRITON[0], 8000),)),))
    (step,) = plan(of(served), options("docker")).steps
    assert step.line.count(f"{TRITON[0]}=localhost:8000") == 1


def test_every_variable_is_refused_with_its_line_and_check_and_argo_take_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "hostile.yaml"
    path.write_text(
        "api-version: 0.4.0\nname: p\noperators:\n- name: load\n  container: {image: nuclei/load, tag: 0.1.0}\n"
        "  input: [{path: /input}]\n  output: [{path: /output}]\n"
        "  variables:\n    NUCLEI_SHARD: 0/1\n    OPENCV_CORE_PLUGIN_PATH: .\n    CLARA_TRITON_URI: evil:8000\n"
    )
    folders_ = ["--input", str(tmp_path), "--output", str(tmp_path / "out")]
    assert main(["run", str(path), *folders_]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(": error:")[0] for line in lines] == [f"{path}:10:5", f"{path}:11:5"]
    assert "OPENCV_CORE_PLUGIN_PATH" in lines[0]
    assert "CLARA_TRITON_URI" in lines[1]
    assert not (tmp_path / "out").exists()
    assert main(["run", str(path), *folders_, "--engine", "docker", "--dry-run"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert main(["check", str(path)]) == 0
    assert main(["argo", str(path), "-o", str(tmp_path / "workflow.yaml")]) == 0
    compat_ = [*folders_, "--engine", "docker", "--compat", "cpost", "--dry-run"]
    assert main(["run", str(path), *compat_]) == 0, "the tool's lines are the tool's"


def test_containers_are_confined_whatever_they_are() -> None:
    for engine in ("podman", "docker"):
        made = plan(definition(), options(engine, models=Path("/m")))
        for line in (*(step.line for step in made.steps), *(service.line for service in made.services)):
            words = shlex.join(line)
            assert CONFINED in words
            assert words.count("--user 1000:1000") == 1
            assert ("--userns keep-id" in words) == (engine == "podman")
            assert line.index("--read-only") < line.index("--user"), "options come before the image"


@pytest.mark.parametrize(
    ("caller", "more", "expected"),
    [
        ((1234, 100), {}, "1234:100"),
        ((0, 0), {}, "1000:1000"),
        ((0, 0), {"environment": {"SUDO_UID": "501", "SUDO_GID": "20"}}, "501:20"),
        ((0, 0), {"environment": {"SUDO_UID": "0", "SUDO_GID": "0"}}, "1000:1000"),
        ((0, 0), {"environment": {"SUDO_UID": "501"}}, "1000:1000"),
        ((0, 0), {"user": (0, 0)}, "0:0"),
        ((1234, 100), {"user": (0, 0)}, "0:0"),
    ],
)
def test_containers_are_root_only_if_that_is_asked_for(
    caller: tuple[int, int], more: dict[str, object], expected: str
) -> None:
    made = plan(definition(), options("docker", caller=caller, models=Path("/m"), **more))
    for line in (*(step.line for step in made.steps), *(service.line for service in made.services)):
        assert line[line.index("--user") + 1] == expected
    assert all(step.owner == tuple(map(int, expected.split(":"))) for step in made.steps)
    said = [remark for remark in made.remarks if "not as root" in remark]
    assert bool(said) == (caller[0] == 0 and "user" not in more)


def test_a_user_is_for_containers() -> None:
    for engine, compat_ in (("process", False), ("docker", True)):
        with pytest.raises(UsageError, match="--user needs"):
            plan(definition(), options(engine, user=(0, 0), compat=compat_, models=Path("/m")))


def test_who_gets_a_network_is_said() -> None:
    made = plan(definition("nuclei-segmentation-fastio"), options("docker", environment={TRITON[0]: "gpu:8000"}))
    assert "filter: gets a network, for the server at gpu:8000" in made.remarks
    assert ["--network" in step.line for step in made.steps] == [True, False, True]


DIAMOND = of(
    Operator("a", Container("x/a", "1"), (Input(None, "", "", "/in"),), (Output("p", "/p"), Output("q", "/q"))),
    Operator("b", Container("x/b", "2", ("run", "a b")), (Input("a", "p", "p", "/in"),), (Output("", "/out"),),
             {"K": "v"}, Requests(1500, 64 * MIB, 2, frozenset(("cpu", "memory", "gpu")))),
    Operator("c", Container("x/c", "3"), (Input("a", "q", "q", "/in"),), (Output("", "/out"),)),
)  # fmt: skip


def test_the_lines_for_containers() -> None:
    made = plan(DIAMOND, options("docker", user=(1000, 100), config=Path("/conf")))
    always = f"--env NVIDIA_CLARA_NOSYNCLOCK=TRUE --env NUCLEI_RUN_ID={made.run}"
    name = f"--name nuclei-{made.run}-operator"
    rest = f"--network none --cpus 2 --memory 1073741824 {CONFINED} --user 1000:100"
    assert made.lines == (
        f"docker run --rm {name}-a {rest} {always} -v /data/in:/in:ro -v /conf:/config:ro "
        f"-v {JOB}/data/a/p:/p -v {JOB}/data/a/q:/q x/a:1",
        f"docker run --rm {name}-b --network none --cpus 1.5 --memory 67108864 --gpus 2 {CONFINED} "
        f"--user 1000:100 {always} "
        f"--env K=v -v {JOB}/data/a/p:/in:ro -v /conf:/config:ro -v {JOB}/data/b:/out x/b:2 run 'a b'",
        f"docker run --rm {name}-c {rest} {always} -v {JOB}/data/a/q:/in:ro -v /conf:/config:ro "
        f"-v {JOB}/data/c:/out x/c:3",
    )
    assert made.results == ((f"{JOB}/data/b", f"{OUT}/b"), (f"{JOB}/data/c", f"{OUT}/c"))
    podman = plan(DIAMOND, options("podman", user=(1000, 100))).steps[1].line
    assert podman[:2] == ("podman", "run")
    assert f"--device nvidia.com/gpu=all {CONFINED} --user 1000:100 --userns keep-id" in shlex.join(podman)


def test_the_lines_for_a_service_and_its_users() -> None:
    made = plan(definition(), options("podman", user=(0, 0), models=Path("/models")))
    name = f"nuclei-{made.run}-service-triton"
    assert shlex.join(made.services[0].line) == (
        f"podman run --rm --name {name} --network none --device nvidia.com/gpu=all {CONFINED} --user 0:0 "
        "-v /models:/models:ro nvcr.io/nvidia/tritonserver:24.12-py3 tritonserver --model-repository=/models"
    )
    lines = [shlex.join(one.line) for one in made.steps]
    assert [f"--network container:{name}" in line for line in lines] == [False, True, False]
    assert ["NVIDIA_CLARA_TRTISURI=localhost:8000" in line for line in lines] == [False, True, False]


def test_containers_share_memory_where_the_definition_asks_for_it() -> None:
    made = plan(definition("nuclei-segmentation-fastio"), options("docker", memory=Path("/dev/shm")))
    assert made.shared == f"/dev/shm/nuclei-job-{made.run}/shm"
    for one in made.steps:
        assert f"-v {made.shared}:/dev/shm" in shlex.join(one.line)
        assert "NUCLEI_STORE_SHM=TRUE" in one.line
    assert [one.volatile for one in made.steps] == [True, True, False]
    without = plan(definition("nuclei-segmentation-fastio"), options("docker"))
    assert "/dev/shm" not in " ".join(without.lines)
    by_folders = plan(definition("nuclei-segmentation-embedded"), options("docker", memory=Path("/dev/shm")))
    assert "/dev/shm" not in " ".join(by_folders.lines)
    served = plan(definition(), options("docker", memory=Path("/dev/shm"), models=Path("/m")))
    assert [f"-v {served.shared}:/dev/shm" in line for line in served.lines] == [True, False, True, False]
    assert "STORE_SHM" not in " ".join(served.lines)


def test_processes_use_the_machines_own_shared_memory() -> None:
    made = plan(definition("nuclei-segmentation-fastio"), options(memory=Path("/dev/shm")))
    assert all("NUCLEI_STORE_SHM=TRUE" in one.line for one in made.steps)
    assert not made.shared


@pytest.mark.parametrize("engine", ["process", "docker"])
def test_stages_of_a_pod_wait_for_each_other(engine: Engine) -> None:
    made = plan(definition("nuclei-segmentation-embedded"), options(engine, pod=True))
    assert made.pod
    for one in made.steps:
        assert not [word for word in one.line if word.startswith("NVIDIA_CLARA_NOSYNCLOCK=")]
        assert f"NUCLEI_RUN_ID={made.run}" in one.line
        assert engine == "docker" or "NVIDIA_CLARA_NOSYNCLOCK" in one.line, "what the caller has of it is unset"


def test_an_image_of_triton_for_models() -> None:
    pipeline = definition("nuclei-segmentation-fastio")
    made = plan(pipeline, options("docker", models=Path("/m"), triton_image="registry:5000/triton:1"))
    name = f"nuclei-{made.run}-service-triton"
    (service,) = made.services
    assert (service.users, service.ports, service.container) == (("filter",), (8000, 8001), name)
    assert shlex.join(service.line) == (
        f"docker run --rm --name {name} --network none --gpus 1 {CONFINED} --user 1000:1000 -v "
        "/m:/models:ro registry:5000/triton:1 tritonserver --model-repository=/models --model-control-mode=explicit "
        "--load-model=segmentation_unet_nuclei"
    )
    filter_ = made.steps[1].line
    assert [f"{one}=localhost:8000" in filter_ for one in TRITON] == [True, True, True, False]
    assert f"{TRITON[3]}=localhost:8001" in filter_
    assert not made.remarks


def test_the_address_that_operators_themselves_would_take_first() -> None:
    given = {"NVIDIA_TRITON_HTTPURI": "b:1", "NVIDIA_CLARA_TRTISURI": "a:1", "CLARA_TRITON_URI": "c:1"}
    made = plan(definition("nuclei-segmentation-fastio"), options(environment=given))
    assert [f"{name}=a:1" in made.steps[1].line for name in TRITON] == [True, True, True, False]


def test_no_image_for_processes() -> None:
    with pytest.raises(UsageError, match="needs --engine podman or docker"):
        plan(definition("nuclei-segmentation-fastio"), options(triton_image="triton:1"))


@pytest.mark.parametrize(("image", "message"), [("triton", "is not an image's NAME:TAG"), ("a:5000/b", "NAME:TAG")])
def test_an_image_without_a_tag(image: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        plan(definition("nuclei-segmentation-fastio"), options("docker", triton_image=image))


def test_no_more_than_the_machine_has() -> None:
    made = plan(DIAMOND, options("docker", cores=1, gpus=False))
    assert "--cpus 1 --memory 67108864 --cap-drop" in made.lines[1]
    assert made.remarks == ("b: requests more cores than this machine has; it gets 1 core",)


def test_a_volume_of_a_service() -> None:
    service = Service("s", Container("x", "1"), (Connection("volume", "MODELS", path="/models"),))
    (remark,) = plan(of(replace(OURS, services=(service,))), options("docker")).remarks
    assert remark.startswith("load: gets no folder of service s as MODELS")


def test_two_services_at_one_port() -> None:
    http = (Connection("http", "A", 8000),)
    services = (Service("one", Container("x", "1"), http), Service("two", Container("x", "2"), http))
    with pytest.raises(UsageError, match="services one and two both listen at port 8000"):
        plan(of(replace(OURS, services=services)), options("docker"))


def test_a_folder_that_cannot_be_mounted() -> None:
    with pytest.raises(UsageError, match="':' in its path"):
        plan(DIAMOND, replace(options("docker"), payload=Path("/a:b")))


RUN = replace(PLAIN, command=("some", "command"))


def folders(sources: str) -> tuple[Input, ...]:
    parts = [one.split(":") for one in sources.split()]
    return tuple(Input(source or None, name, name, path) for source, name, path in parts)


@pytest.mark.parametrize(
    ("operator", "rest"),
    [  # the cases of the tool's own tests
        (Operator("op", PLAIN, folders("::/input"), (Output("", "/output"),), {"V0": "2", "V1": "hi"}),
         "--env V0=2 --env V1=hi -v IN:/input -v DATA/op:/output image:tag"),
        (Operator("op", PLAIN), "image:tag"),
        (Operator("op", PLAIN, folders("liver::/input")), "-v DATA/liver:/input image:tag"),
        (Operator("op", PLAIN, folders("liver:classification:/input ::/dcm")),
         "-v DATA/liver/classification:/input -v IN:/dcm image:tag"),
        (Operator("op", RUN, folders("::/input"), (Output("logs", "/output"),)),
         "-v IN:/input -v DATA/op/logs:/output image:tag some command"),
        (Operator("op", PLAIN, models=(Model("m"),)),
         "--env NVIDIA_TRITON_HTTPURI=localhost:8000 --env CLARA_TRITON_URI=localhost:8000 --env "
         "NVIDIA_CLARA_TRTISURI=localhost:8000 --env NVIDIA_TRITON_GRPCURI=localhost:8001 image:tag"),
        (Operator("op", RUN, folders("liver:classification:/input ::/dcm"),
                  (Output("dicom", "/output"), Output("logs", "/logs")), {"VAR0": "2"}),
         "--env VAR0=2 -v DATA/liver/classification:/input -v IN:/dcm -v DATA/op/dicom:/output -v DATA/op/logs:/logs "
         "image:tag some command"),
    ],
)  # fmt: skip
def test_lines_of_nvidias_tool(operator: Operator, rest: str) -> None:
    line = shlex.join(operator_step(operator, Folders(IN, OUT), "localhost").line)
    rest = rest.replace("IN:", f"{IN}:").replace("DATA", f"{JOB}/data")
    assert line == f"docker run -d --rm --env NVIDIA_CLARA_NOSYNCLOCK=1 {rest}"


def test_a_whole_pipeline_as_nvidias_tool_has_it() -> None:
    made = plan(definition(), options("docker", compat=True, models=Path("/m")))
    start = "docker run -d --rm --env NVIDIA_CLARA_NOSYNCLOCK=1"
    assert made.lines[0] == (
        "docker run --gpus=1 --rm -d -p8000:8000 -p8001:8001 -p8002:8002 -v /m:/models "
        "nvcr.io/nvidia/tritonserver:24.12-py3 tritonserver --model-repository=/models"
    )
    assert made.lines[2] == (
        f"{start} --env NVIDIA_CLARA_TRTISURI=TRITON_IP:8000 -v {JOB}/data/load:/input/tiles "
        f"-v {JOB}/data/filter:/output nuclei/filter:0.1.0 "
        "/bin/bash -c 'python -u /app/main.py filter -w 2 -m segmentation_unet_nuclei'"
    )


def compat(*operators: Operator, **more: object) -> list[str]:
    """Return the lines of NVIDIA's tool, without their beginnings."""
    lines = plan(of(*operators), options("docker", compat=True, **more)).lines
    return [line.removeprefix("docker run ") for line in lines]


def test_models_as_nvidias_tool_has_them() -> None:
    server, *_ = compat(replace(OURS, models=(Model("m"), Model("n"))), models=Path("/m"))
    assert server == (
        "--gpus=1 --rm -d -p8000:8000 -p8001:8001 -p8002:8002 -v /m:/models nvcr.io/nvidia/tritonserver:20.07-v1-py3 "
        "tritonserver --model-repository=/models --model-control-mode=explicit --load-model=m --load-model=n"
    )


def triton(name: str, image: str, *connections: str) -> Service:
    ports = tuple(Connection("http", one, 8000) for one in connections)
    return Service(name, Container(image, "1", ("serve",)), ports)


def test_services_as_nvidias_tool_has_them() -> None:
    """One server at a time, started anew if another was wanted in between; what is no Triton is left out."""
    one, two, other = triton("trtis", "x", "ONE"), triton("my-triton", "y", "TWO"), triton("other", "z", "OTHER")
    made = compat(
        replace(OURS, name="a", services=(one,)),
        replace(OURS, name="b", services=(one, two), variables={"V": "1"}),
        replace(OURS, name="c", services=(other, one), variables={"ONE": "mine"}),
        models=Path("/m"),
    )
    assert [line.split()[-2] for line in made if line.startswith("--gpus")] == ["x:1", "y:1", "x:1"]
    environments = [line.partition("NOSYNCLOCK=1 ")[2].partition(" -v")[0] for line in made[3:]]
    assert environments == [
        "--env ONE=TRITON_IP:8000",
        "--env TWO=TRITON_IP:8000 --env ONE=TRITON_IP:8000 --env V=1",
        "--env ONE=mine",
    ]
    assert len(compat(replace(OURS, services=(other,)))) == 1


@pytest.mark.parametrize(
    ("operator", "message"),
    [
        (replace(OURS, outputs=(Output("o", None),)), "shared memory"),
        (replace(OURS, services=(triton("other", "x"),)), "http connections"),
        (replace(OURS, services=(Service("triton", PLAIN, (Connection("http", "A", None),)),)), "ports"),
        (replace(OURS, services=(replace(triton("triton", "x", "A"), container=PLAIN),)), "requires a `command`"),
        (replace(OURS, models=(Model("m"),), services=(triton("triton", "x", "A"),)), "both models and services"),
    ],
)  # fmt: skip
def test_what_nvidias_tool_breaks_off_at(operator: Operator, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        compat(operator, models=Path("/m"))


@pytest.mark.parametrize(("more", "message"), [({"engine": "podman"}, "--engine docker"), ({}, "--models")])
def test_what_nvidias_tool_refuses(more: dict[str, Engine], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        plan(definition(), options(**{"engine": "docker", "compat": True, **more}))


def test_what_is_only_read_by_who_writes_nothing_is_a_result() -> None:
    made = plan(definition("nuclei-segmentation-render"), options("docker"))
    assert made.results == ((f"{JOB}/data/segmentation", str(OUT)),)


def test_the_same_plan_has_the_same_hash(tmp_path: Path) -> None:
    copy = tmp_path / "copy.yaml"
    copy.write_text("# moved down\n\n" + (ROOT / "pipelines" / "nuclei-segmentation.yaml").read_text())
    first, second = plan(definition(), options()), plan(Definition(copy).resolve({}), options())
    assert (first.hash, first.run) == (second.hash, second.run)
    assert plan(definition(WORKERS="3"), options()).hash != first.hash


def test_lines_are_for_a_shell() -> None:
    words = ["a b", "'", "$X", "new\nline\t'\\", "\x1b[31m", "µ", ""]
    line = quoted(words)
    assert line.isprintable()
    done = subprocess.run(["bash", "-c", f"printf '%s\\0' {line}"], capture_output=True, text=True, check=True)
    assert done.stdout.split("\0")[:-1] == words


def test_quoted_for_bash_whatever_it_is() -> None:
    words = ["a b", "it's", "\u00e9\n\\'", "\u00e9", "\udcff1", "\U0010ffff", "\t$x"]
    done = subprocess.run(["bash", "-c", f"printf '%s\\0' {quoted(words)}"], capture_output=True, check=True)
    assert done.stdout == b"".join(os.fsencode(word) + b"\0" for word in words)
