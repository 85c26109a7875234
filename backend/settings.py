"""Settings: read once from the environment (AFTER_...) and `.env`, checked, passed down.

Everything has a default that works on one machine. Nothing below the entry points reads the
environment.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

if TYPE_CHECKING:
    from after_model.active_learning import LearnerConfig

AUDIT_SHARE = 0.05
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class SettingsError(ValueError):
    """A setting that can't be followed; the message names the variable and the fix."""


class Settings(BaseSettings):
    """What an operator may set. Names are AFTER_<FIELD> in upper case, or the alias given."""

    model_config = SettingsConfigDict(
        env_prefix="AFTER_", env_file=".env", extra="ignore", populate_by_name=True
    )

    # where things are
    data: Path = Field(default=Path("data"), description="models, features, audio, state")
    database_url: SecretStr = Field(
        default=SecretStr(""), description="postgresql://... where several machines share the work"
    )
    label_studio_url: str = Field(
        default="",
        validation_alias=AliasChoices("AFTER_LABEL_STUDIO_URL", "LABEL_STUDIO_URL"),
        description="Label Studio's address as the backend sees it",
    )
    label_studio_api_key: SecretStr = Field(
        default=SecretStr(""),
        validation_alias=AliasChoices("AFTER_LABEL_STUDIO_API_KEY", "LABEL_STUDIO_API_KEY"),
        description="a personal access token or a legacy token",
    )
    label_studio_wait_s: float = Field(
        default=1800.0, gt=0, description="that a job waits for a Label Studio that is away"
    )
    url: str = Field(default="", description="the backend's address as Label Studio sees it")

    # the service
    host: str = Field(default="127.0.0.1", description="address to listen on")
    port: int = Field(default=9090, ge=1, le=65535)
    basic_auth_user: str = ""
    basic_auth_pass: SecretStr = SecretStr("")
    allow_unauthenticated: bool = Field(
        default=False, description="listen beyond loopback without credentials"
    )
    trust_proxy: bool = Field(
        default=False, description="without credentials, serve what a proxy on this machine sends"
    )
    max_body_bytes: int = Field(default=64 * 2**20, ge=1024)
    threads: int = Field(default=8, ge=1, description="of the web process")

    # what people see
    show_guess: bool = Field(
        default=False, description="the model's choice, to people who have not answered yet"
    )

    # the method; None: the preset's value
    preset: Literal["default", "paper"] = Field(
        default="default", description="what every setting of the method is that is not given"
    )
    backbone: str | None = None
    fine_tuning: Literal["never", "competes", "always"] | None = Field(
        default=None, description="of the encoder in every round"
    )
    tapt: bool | None = Field(
        default=None, description="task-adaptive pre-training on the project's audio"
    )
    tapt_epochs: int | None = Field(default=None, ge=1)
    start: str | None = None
    start_share: float | None = Field(default=None, gt=0, le=1)
    strategy: str | None = None
    budget_share: float | None = Field(default=None, gt=0, le=1)
    audit_share: float | None = Field(
        default=None, ge=0, le=0.5, description="of the labels asked for, drawn to judge the model"
    )
    rounds: int | None = Field(default=None, ge=1, description="from the start to the budget")
    round_size: int | None = Field(default=None, ge=1, description="labels that begin a round")
    epochs: int | None = Field(default=None, ge=1, description="of fine-tuning per round, at most")
    warm_start: str | None = None
    validation_share: float = Field(
        default=0.2, ge=0, lt=1, description="of the labels, held out where always fine-tuned"
    )
    seed: int = 0
    keep_models: int = Field(default=10, ge=2)

    # computing
    device: str = "auto"
    worker_name: str = Field(default="", description="the same after a restart; else the host's")
    compute_threads: int | None = Field(default=None, ge=1)
    compute_timeout_s: float = Field(default=24 * 3600, gt=0, description="of one heavy step")

    max_cache_bytes: int = Field(
        default=20 * 2**30, ge=2**20, description="of features and of embeddings, each, a project"
    )

    # audio
    max_audio_bytes: int = Field(default=100 * 2**20, ge=1)
    max_audio_s: float = Field(default=120.0, gt=0)
    fetch_timeout_s: float = Field(default=30.0, gt=0, description="without a byte")
    fetch_total_s: float = Field(default=300.0, gt=0, description="of one recording, in all")
    fetch_workers: int = Field(default=8, ge=1)
    allow_private_addresses: bool = Field(
        default=False, description="fetch audio from private addresses other than Label Studio's"
    )

    # watching
    poll_s: float = Field(default=0.25, gt=0, description="between looks at what happened")
    step_size: int | None = Field(
        default=None, ge=1, description="labels that begin a step; one a class where not given"
    )
    step_s: float = Field(
        default=5.0, gt=0, description="after which fewer labels begin a step, too"
    )
    window: int | None = Field(
        default=None, ge=2, description="tasks pushed at a time; as many as are labelled else"
    )
    reconcile_s: float = Field(
        default=60.0, gt=0, description="between looks at Label Studio itself"
    )
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator("url", "label_studio_url")
    @classmethod
    def _plain_url(cls, value: str) -> str:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError(f"{value!r} is no address; write http://host:port")
        return value.rstrip("/")

    @property
    def backend_url(self) -> str:
        """The address that Label Studio is told."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return self.url or f"http://{host}:{self.port}"

    @property
    def has_credentials(self) -> bool:
        return bool(self.basic_auth_user and self.basic_auth_pass.get_secret_value())

    @property
    def projects_folder(self) -> Path:
        return self.data / "projects"

    @property
    def state_url(self) -> str:
        """SQLAlchemy's address of the table of projects."""
        return _sqlalchemy_url(self.database_url) or f"sqlite:///{self.data / 'after.sqlite'}"

    @property
    def jobs_url(self) -> str:
        """SQLAlchemy's address of the jobs."""
        return _sqlalchemy_url(self.database_url) or f"sqlite:///{self.data / 'jobs.sqlite'}"

    def learner_config(self) -> LearnerConfig:
        """What every learner of this backend does; raises SettingsError for an unknown name."""
        # Imported here: the web process and `--help` have no need to wait for torch.
        from dataclasses import replace

        from after_model import acquisition, initialization
        from after_model.active_learning import LearnerConfig
        from after_model.tapt.config import TaptConfig

        names = (
            "backbone", "fine_tuning", "start", "start_share", "strategy", "budget_share",
            "audit_share", "rounds", "warm_start", "validation_share", "seed",
        )  # fmt: skip
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        if self.preset == "default":  # people need to know how good it is; a simulation tests it
            given.setdefault("audit_share", AUDIT_SHARE)
        try:
            config = LearnerConfig.preset(self.preset, **given)
            acquisition.get(config.strategy)
            initialization.get(config.start)
        except (LookupError, ValueError) as error:
            raise SettingsError(f"AFTER_STRATEGY, AFTER_START, AFTER_WARM_START: {error}") from None
        tapt = config.tapt
        if self.tapt is not None:
            tapt = (tapt or TaptConfig()) if self.tapt else None
        if tapt is not None and self.tapt_epochs is not None:
            tapt = replace(tapt, epochs=self.tapt_epochs)
        training = config.training
        if self.epochs is not None:
            training = replace(training, epochs=self.epochs)
        return replace(config, tapt=tapt, training=training)

    def check_listening(self) -> None:
        """Raises SettingsError when the service would be open to others without a password."""
        if self.host in LOOPBACK or self.has_credentials or self.allow_unauthenticated:
            return
        raise SettingsError(
            f"AFTER_HOST={self.host} is reachable from other machines: set AFTER_BASIC_AUTH_USER "
            "and AFTER_BASIC_AUTH_PASS, or AFTER_ALLOW_UNAUTHENTICATED=true if something else "
            "keeps others out"
        )


def load() -> Settings:
    """The settings of this process; raises SettingsError naming the variables that are wrong."""
    try:
        settings = Settings()
        os.umask(0o077)  # keys, recordings and models are their owner's alone from the beginning
        settings.data = settings.data.resolve()  # children run in other folders
        settings.data.mkdir(parents=True, exist_ok=True)
    except ValidationError as error:
        lines = [
            f"AFTER_{'_'.join(map(str, e['loc'])).upper().removeprefix('AFTER_')}: "
            f"{e['msg'].removeprefix('Value error, ')}"
            for e in error.errors(include_input=False, include_url=False)
        ]
        raise SettingsError("; ".join(lines)) from None
    except OSError as error:
        raise SettingsError(f"AFTER_DATA: can't use the folder: {error}") from None
    return settings


def new_secret() -> str:
    """A random text for a webhook's secret header."""
    return secrets.token_hex(20)


def _sqlalchemy_url(url: SecretStr) -> str:
    text = url.get_secret_value()
    for prefix in ("postgres://", "postgresql://"):
        if text.startswith(prefix):
            return "postgresql+psycopg://" + text.removeprefix(prefix)
    return text
