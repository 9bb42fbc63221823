"""A wrong setting is told in one line that names it, what came and what is allowed; secrets are never shown."""

import pytest

from worker.errors import SettingsError
from worker.output.options import Bucket
from worker.settings import Settings, read_settings

BUCKET = {
    "BUCKET_ENDPOINT_URL": "https://s3.example.com",
    "BUCKET_ACCESS_KEY_ID": "AKIDCANARY",
    "BUCKET_SECRET_ACCESS_KEY": "secretcanary",
    "BUCKET_NAME": "pictures",
}


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the machine that runs the tests counts."""
    for name in [*(field.upper() for field in Settings.model_fields), "HF_AUTH_TOKEN"]:
        monkeypatch.delenv(name, raising=False)


def _read(monkeypatch: pytest.MonkeyPatch, **environment: str) -> Settings:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return read_settings()


def _told(monkeypatch: pytest.MonkeyPatch, **environment: str) -> str:
    with pytest.raises(SettingsError) as caught:
        _read(monkeypatch, **environment)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_an_empty_environment_is_enough() -> None:
    settings = read_settings()
    assert settings.model_name is None and Bucket.of_endpoint(settings) is None and settings.hf_token is None


@pytest.mark.parametrize(
    ("name", "came", "allowed"),
    [
        ("DTYPE", "int8", "'float16'"),
        ("DTYPE", "FLOAT\n16", "'float16'"),
        ("SAFETY_CHECKER", "maybe", "'off'"),
        ("MAX_PIXELS", "big", "integer"),
        ("MAX_PIXELS", "100", "4096"),
        ("MAX_STEPS", "0", "1"),
        ("MAX_STEPS", "2.5", "integer"),
        ("MAX_IMAGES", "-1", "1"),
        ("JOB_TIMEOUT_S", "0", "greater than 0"),
        ("JOB_TIMEOUT_S", "nan", "greater than 0"),
        ("JOB_TIMEOUT_S", "soon", "number"),
        ("MAX_RESULT_BYTES", "10", "1000"),
        ("MAX_INPUT_BYTES", "20MB", "integer"),
        ("ALLOWED_IMAGE_HOSTS", "https://cdn.example.com", "pattern"),
        ("ALLOWED_IMAGE_HOSTS", "cdn.example.com:8080", "pattern"),
        ("ALLOWED_IMAGE_HOSTS", "*", "pattern"),
        ("ALLOWED_IMAGE_HOSTS", "cdn.*.com", "pattern"),
        ("ALLOWED_IMAGE_HOSTS", "a.com,,b.com", "pattern"),
        ("BUCKET_ENDPOINT_URL", "s3.example.com", "http"),
    ],
)
def test_a_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch, name: str, came: str, allowed: str) -> None:
    told = _told(monkeypatch, **{name: came})
    assert told.startswith(f"{name}: got {came!r}; ") and allowed in told.partition("; ")[2]


def test_all_wrong_settings_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    told = _told(monkeypatch, DTYPE="int8", MAX_STEPS="0", MAX_IMAGES="many")
    assert all(f"{name}: got " in told for name in ("DTYPE", "MAX_STEPS", "MAX_IMAGES"))


def test_a_flood_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(_told(monkeypatch, DTYPE="x" * 10_000)) < 300


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_partial_bucket_names_what_is_missing(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    told = _told(monkeypatch, **dict(list(BUCKET.items())[:count]))
    for index, name in enumerate(BUCKET):
        assert (name in told) == (index >= count)
    assert "canary" not in told.lower()


def test_a_whole_bucket_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = Bucket.of_endpoint(_read(monkeypatch, **BUCKET))
    assert bucket is not None and (bucket.endpoint_url, bucket.name) == ("https://s3.example.com", "pictures")
    assert bucket.access_key_id.get_secret_value() == "AKIDCANARY"
    assert bucket.secret_access_key.get_secret_value() == "secretcanary"


def test_empty_values_count_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [*(field.upper() for field in Settings.model_fields), "HF_AUTH_TOKEN"]
    assert _read(monkeypatch, **dict.fromkeys(names, "")) == Settings.model_construct()


def test_an_empty_part_of_a_bucket_is_a_missing_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "BUCKET_NAME" in _told(monkeypatch, **{**BUCKET, "BUCKET_NAME": ""})


@pytest.mark.parametrize(
    ("listed", "hosts"),
    [
        ("", ()),
        ("cdn.example.com", ("cdn.example.com",)),
        (" a.com , *.b.com,192.0.2.7 ", ("a.com", "*.b.com", "192.0.2.7")),
    ],
)
def test_hosts_are_listed_with_commas(monkeypatch: pytest.MonkeyPatch, listed: str, hosts: tuple[str, ...]) -> None:
    assert _read(monkeypatch, ALLOWED_IMAGE_HOSTS=listed).image_hosts == hosts


@pytest.mark.parametrize(
    ("environment", "token"),
    [
        ({"HF_TOKEN": "new"}, "new"),
        ({"HF_AUTH_TOKEN": "old"}, "old"),
        ({"HF_TOKEN": "new", "HF_AUTH_TOKEN": "old"}, "new"),
        ({"HF_TOKEN": "", "HF_AUTH_TOKEN": "old"}, "old"),
    ],
)
def test_the_hub_token_goes_by_two_names(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], token: str
) -> None:
    found = _read(monkeypatch, **environment).hf_token
    assert found is not None and found.get_secret_value() == token


def test_secrets_print_as_stars(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = _read(monkeypatch, **BUCKET, HF_TOKEN="hf_canary")
    for shown in (repr(settings), str(settings), repr(Bucket.of_endpoint(settings)), f"{settings.model_dump()}"):
        assert "canary" not in shown.lower()


def test_an_error_beside_secrets_does_not_show_them(monkeypatch: pytest.MonkeyPatch) -> None:
    told = _told(monkeypatch, **BUCKET, HF_TOKEN="hf_canary", MAX_STEPS="0")
    assert "canary" not in told.lower()


def test_settings_do_not_change_while_the_worker_runs() -> None:
    with pytest.raises(ValueError, match="frozen"):
        read_settings().max_steps = 5


def test_strangers_in_the_environment_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _read(monkeypatch, MAX_STEP="0", BUCKET="x") == Settings.model_construct()


def test_blanks_and_line_ends_around_a_value_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = _read(
        monkeypatch, HF_TOKEN=" hf_x\n", MODEL_NAME="org/name ", OFFLOAD="group\r", LORA_DIR="  ", MAX_STEPS=" 20 "
    )
    assert settings.hf_token is not None and settings.hf_token.get_secret_value() == "hf_x"
    assert (settings.model_name, settings.offload) == ("org/name", "group")
    assert (settings.lora_dir, settings.max_steps) == (None, 20)
