"""The files that deploy: compose against its schema and against what Label Studio wants."""

from __future__ import annotations

import ipaddress
import json
import re
import shlex
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from backend.__main__ import _parser
from backend.label_studio.importing import IMPORT_FLAG
from backend.settings import Settings
from tests.image import Instruction, parse

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "docker-compose.yml"
GPU = ROOT / "docker-compose.gpu.yml"
VARIABLE = re.compile(r"\$\{(\w+)(?:(:[-?])([^}]*))?\}")
# What must never have a value by default.
SECRET = ("PASSWORD", "PASS", "_KEY", "USERNAME", "_USER")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, Any]:
    return compose["services"]


@pytest.fixture(scope="module")
def dockerfile() -> list[Instruction]:
    return parse((ROOT / "Dockerfile").read_text(encoding="utf-8"))


def of(dockerfile: list[Instruction], name: str) -> list[str]:
    return [instruction.text for instruction in dockerfile if instruction.name == name]


# --- compose -------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [COMPOSE, GPU], ids=lambda path: path.name)
def test_compose_file_follows_the_schema(path: Path) -> None:
    vendored = files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json"
    schema = json.loads(vendored.read_text(encoding="utf-8"))
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    jsonschema.validators.validator_for(schema)(schema).validate(content)


def test_gpu_file_changes_the_worker_alone(services: dict[str, Any]) -> None:
    changed = yaml.safe_load(GPU.read_text(encoding="utf-8"))["services"]
    assert set(changed) == {"worker"} < set(services)


def test_every_host_name_in_an_address_has_a_dot_and_is_an_alias(services: dict[str, Any]) -> None:
    aliases = {
        name for service in services.values() for name in service["networks"]["after"]["aliases"]
    }
    text = COMPOSE.read_text(encoding="utf-8") + (ROOT / ".env.example").read_text("utf-8")
    named = set(re.findall(r"(?://|@)([a-z][a-z.-]*):\d", text))
    assert named <= aliases
    assert all("." in name for name in aliases)


def test_ports_are_published_on_loopback_by_default(services: dict[str, Any]) -> None:
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("${LISTEN:-127.0.0.1}:") for port in ports)


def test_label_studio_imports_predictions_cheaply(services: dict[str, Any]) -> None:
    name, value = IMPORT_FLAG.split("=")
    assert services["label-studio"]["environment"][name] == value


def test_no_secret_has_a_default() -> None:
    for name, kind, value in VARIABLE.findall(COMPOSE.read_text(encoding="utf-8")):
        if name.endswith(SECRET):
            assert kind == ":?" or not value, name


@pytest.mark.parametrize(
    "name",
    ["LABEL_STUDIO_USERNAME", "LABEL_STUDIO_PASSWORD", "LABEL_STUDIO_API_KEY",
     "AFTER_BASIC_AUTH_USER", "AFTER_BASIC_AUTH_PASS"],
)  # fmt: skip
def test_compose_refuses_to_start_without(name: str) -> None:
    uses = [
        (kind, text)
        for found, kind, text in VARIABLE.findall(COMPOSE.read_text(encoding="utf-8"))
        if found == name
    ]
    assert uses
    assert all(kind == ":?" and ".env" in text for kind, text in uses)


def test_env_example_names_every_variable_and_gives_no_secret() -> None:
    lines = (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()
    example = dict(
        re.match(r"#?(\w+)=(.*)", line).groups()  # type: ignore[union-attr]
        for line in lines
        if re.match(r"#?[A-Z_]+=", line)
    )
    used = {name for name, _, _ in VARIABLE.findall(COMPOSE.read_text(encoding="utf-8"))}
    assert used <= set(example)
    assert not [name for name, value in example.items() if name.endswith(SECRET) and value]


def test_every_setting_that_compose_passes_on_exists(services: dict[str, Any]) -> None:
    fields = {f"AFTER_{name.upper()}" for name in Settings.model_fields}
    for name in ("backend", "worker"):
        passed = {key for key in services[name]["environment"] if key.startswith("AFTER_")}
        assert passed <= fields


# What the image or compose itself decides.
OWN = {"AFTER_DATA", "AFTER_HOST", "AFTER_PORT", "AFTER_ALLOW_UNAUTHENTICATED", "AFTER_TRUST_PROXY"}


def test_every_setting_can_be_given_to_compose(services: dict[str, Any]) -> None:
    fields = {f"AFTER_{name.upper()}" for name in Settings.model_fields}
    passed = set(services["worker"]["environment"])
    assert fields - passed == OWN


def test_no_log_grows_for_ever(services: dict[str, Any]) -> None:
    for service in services.values():
        assert service["logging"]["driver"] == "json-file"
        assert set(service["logging"]["options"]) == {"max-size", "max-file"}


def test_memory_and_processors_are_limited_by_variables_that_are_no_limit_by_default(
    services: dict[str, Any],
) -> None:
    for service in services.values():
        for key in ("mem_limit", "cpus"):
            assert VARIABLE.fullmatch(str(service[key])).groups()[1:] == (":-", "0")  # type: ignore[union-attr]


def test_the_workers_health_is_asked_by_a_command_that_there_is(services: dict[str, Any]) -> None:
    kind, *command = services["worker"]["healthcheck"]["test"]
    assert (kind, command[:3]) == ("CMD", ["python", "-m", "backend"])
    options = _parser().parse_args(command[3:])
    assert options.check


def test_web_and_worker_share_data_settings_and_image(services: dict[str, Any]) -> None:
    for key in ("environment", "volumes", "image", "build"):
        assert services["backend"][key] == services["worker"][key]


def test_label_studio_may_reach_the_backend_and_no_other_private_address(
    compose: dict[str, Any], services: dict[str, Any]
) -> None:
    settings = services["label-studio"]["environment"]
    assert settings["USE_DEFAULT_BANNED_SUBNETS"] == "false"
    banned = [
        ipaddress.ip_network(n) for n in settings["USER_ADDITIONAL_BANNED_SUBNETS"].split(",")
    ]

    def refused(address: ipaddress.IPv4Address) -> bool:
        return any(address in network for network in banned)

    own = ipaddress.ip_network(compose["networks"]["after"]["ipam"]["config"][0]["subnet"])
    assert not any(map(refused, own.hosts()))
    others = ["127.0.0.1", "10.1.2.3", "172.16.0.1", "172.29.255.1", "172.31.0.1", "192.168.1.1",
              "169.254.169.254", "100.64.0.1", "0.0.0.1"]  # fmt: skip
    assert all(refused(ipaddress.ip_address(address)) for address in others)


def test_label_studio_serves_a_folder_below_its_document_root(services: dict[str, Any]) -> None:
    root = services["label-studio"]["environment"]["LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT"]
    targets = [volume.split(":")[-2] for volume in services["label-studio"]["volumes"][1:]]
    assert targets == [f"{root}/recordings"]


# --- Dockerfile ----------------------------------------------------------------------------------


def test_image_runs_as_another_user_than_root(dockerfile: list[Instruction]) -> None:
    assert of(dockerfile, "USER") == ["after"]


def test_image_starts_the_web_process_and_says_when_it_is_well(
    dockerfile: list[Instruction],
) -> None:
    assert [json.loads(text) for text in of(dockerfile, "CMD")] == [
        ["python", "-m", "backend", "serve"]
    ]
    (health,) = of(dockerfile, "HEALTHCHECK")
    program = json.loads(health.split("CMD", 1)[1])
    compile(program[-1], "HEALTHCHECK", "exec")


def test_image_copies_what_is_there_and_not_ignored(dockerfile: list[Instruction]) -> None:
    kept = {
        line[1:]
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line.startswith("!")
    }
    sources = {word for text in of(dockerfile, "COPY") for word in shlex.split(text)[:-1]}
    assert sources == kept
    assert all((ROOT / source).exists() for source in sources)


def test_packages_come_before_the_program(dockerfile: list[Instruction]) -> None:
    names = [f"{i.name} {i.text}" for i in dockerfile if i.name in ("COPY", "RUN")]
    program = names.index("COPY backend backend")
    assert all(not name.startswith("RUN") for name in names[program:])


def test_pytorch_is_an_argument_that_agrees_with_the_requirements(
    dockerfile: list[Instruction],
) -> None:
    (default,) = [text for text in of(dockerfile, "ARG") if text.startswith("TORCH=")]
    pinned = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert default.removeprefix("TORCH=") in pinned
