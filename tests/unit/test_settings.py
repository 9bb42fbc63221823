"""A wrong setting is told in one line that names it, what came and what is allowed; secrets are never shown."""

import logging
import os
from itertools import combinations

import pytest

from worker.environment import set_aside_unusable
from worker.errors import SettingsError
from worker.output.options import Bucket, OutputRules
from worker.settings import Settings, read_settings

BUCKET = {
    "BUCKET_ENDPOINT_URL": "https://s3.example.com",
    "BUCKET_ACCESS_KEY_ID": "AKIDCANARY",
    "BUCKET_SECRET_ACCESS_KEY": "secretcanary",
    "BUCKET_NAME": "pictures",
}

NEEDED = [name for name in BUCKET if name != "BUCKET_NAME"]


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
        ("JOB_TIMEOUT_S", "nan", "a finite number"),
        ("JOB_TIMEOUT_S", "1e10", "31536000"),
        ("JOB_TIMEOUT_S", "soon", "number"),
        ("MAX_RESULT_BYTES", "10", "1000"),
        ("MAX_INPUT_BYTES", "20MB", "integer"),
        ("DEFAULT_STEPS", "0", "1"),
        ("DEFAULT_GUIDANCE_SCALE", "51", "50"),
        ("DEFAULT_GUIDANCE_SCALE", "nan", "a finite number"),
        ("DEFAULT_SIZE", "832", "832x1216"),
        ("DEFAULT_SIZE", "832x", "832x1216"),
        ("DEFAULT_SIZE", "832x1216x3", "832x1216"),
        ("DEFAULT_SIZE", "-832x1216", "832x1216"),
        ("DEFAULT_SIZE", "32x1216", "64 to 8192"),
        ("DEFAULT_SIZE", "832x9999", "64 to 8192"),
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


@pytest.mark.parametrize("size", ["832x1216", "832X1216", " 832 x 1216 "])
def test_a_size_is_width_and_height(monkeypatch: pytest.MonkeyPatch, size: str) -> None:
    assert _read(monkeypatch, DEFAULT_SIZE=size).default_sides == (832, 1216)


def test_all_wrong_settings_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    told = _told(monkeypatch, DTYPE="int8", MAX_STEPS="0", MAX_IMAGES="many")
    assert all(f"{name}: got " in told for name in ("DTYPE", "MAX_STEPS", "MAX_IMAGES"))


def test_a_flood_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(_told(monkeypatch, DTYPE="x" * 10_000)) < 300
    assert len(_told(monkeypatch, DTYPE="auto", LORA_REPOS="x" * 10_000)) < 400


def test_all_wrong_settings_are_told_at_once_whatever_they_are_of(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {
        "MAX_STEPS": "0",
        "ALLOWED_IMAGE_HOSTS": "https://a.com",
        "ALLOWED_BUCKET_HOSTS": "*",
        "LORA_DIR": "/no/such/folder",
        "EMBEDDINGS_DIR": "/dev/null",
        "LORA_REPOS": "org/name, elsewhere",
        "CONTROLNETS": "canny=org/name, depth",
        "BUCKET_REGION": "eu west",
    }
    told = _told(monkeypatch, **wrong)
    assert [name for name, value in wrong.items() if f"{name}: got {value!r}; " not in told] == []
    assert "not 'elsewhere'" in told and "not 'depth'" in told


def test_a_gap_in_the_bucket_is_told_beside_wrong_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    told = _told(monkeypatch, MAX_STEPS="0", BUCKET_ENDPOINT_URL="https://s3.example.com/pictures")
    assert told.startswith("MAX_STEPS: got '0'; ")
    assert told.partition(" not set; ")[0].endswith("BUCKET_ACCESS_KEY_ID and BUCKET_SECRET_ACCESS_KEY")


def _bucket_warnings(settings: Settings, caplog: pytest.LogCaptureFixture) -> list[str]:
    """What is logged of a bucket that the settings do not make clear; there is none then."""
    caplog.clear()
    with caplog.at_level(logging.DEBUG, "worker"):
        assert OutputRules.of_endpoint(settings).bucket is None
    assert "canary" not in caplog.text.lower()
    return caplog.messages


@pytest.mark.parametrize("missing", [one for count in (1, 2, 3) for one in combinations(NEEDED, count)])
@pytest.mark.parametrize("name", ["pictures", ""])
def test_a_partial_bucket_is_a_warning_that_names_what_is_missing(
    missing: tuple[str, ...], name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings = _read(monkeypatch, **{**BUCKET, "BUCKET_NAME": name, **dict.fromkeys(missing, "")})
    warnings = _bucket_warnings(settings, caplog)
    if len(missing) == len(NEEDED) and not name:
        assert warnings == []
    else:
        (warning,) = warnings
        said = warning.partition(" not set; ")[0]
        assert [one for one in NEEDED if one in said] == [one for one in NEEDED if one in missing]


@pytest.mark.parametrize(
    ("url", "name", "setting"),
    [
        ("https://s3.eu-west-1.amazonaws.com", "", "BUCKET_NAME"),
        ("https://canary.r2.cloudflarestorage.com/", "", "BUCKET_NAME"),
        ("https://canary.supabase.co/storage/v1/s3", "", "BUCKET_NAME"),
        ("https://canary.s3.eu-west-1.amazonaws.com", "pictures", "BUCKET_NAME"),
        ("https://storage.googleapis.com/canary", "pictures", "BUCKET_NAME"),
        ("https://user:canary@s3.example.com/pictures", "", "BUCKET_ENDPOINT_URL"),
        ("https://s3.example.com/pictures?canary", "", "BUCKET_ENDPOINT_URL"),
        ("https://", "pictures", "BUCKET_ENDPOINT_URL"),
        ("https://[::1", "pictures", "BUCKET_ENDPOINT_URL"),
    ],
)
def test_a_bucket_that_cannot_be_found_is_a_warning(
    url: str, name: str, setting: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings = _read(monkeypatch, **{**BUCKET, "BUCKET_ENDPOINT_URL": url, "BUCKET_NAME": name})
    (warning,) = _bucket_warnings(settings, caplog)
    assert warning.startswith(f"{setting}: ") and "pictures are sent in the answer" in warning


def test_a_whole_bucket_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = Bucket.of_endpoint(_read(monkeypatch, **BUCKET))
    assert bucket is not None and (bucket.address.endpoint_url, bucket.name) == ("https://s3.example.com", "pictures")
    assert bucket.access_key_id.get_secret_value() == "AKIDCANARY"
    assert bucket.secret_access_key.get_secret_value() == "secretcanary"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (
            "https://pictures.s3.eu-west-1.amazonaws.com/a",
            "bucket pictures: named in the host, signed for region eu-west-1",
        ),
        ("https://s3.example.com/pictures/a", "bucket pictures: named in the path, signed for region auto"),
    ],
)
def test_how_a_bucket_was_read_is_said_in_one_line(
    url: str, said: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings = _read(monkeypatch, **{**BUCKET, "BUCKET_ENDPOINT_URL": url, "BUCKET_NAME": ""})
    with caplog.at_level(logging.INFO, "worker"):
        bucket = OutputRules.of_endpoint(settings).bucket
    assert bucket is not None and bucket.address.folder == "a"
    assert caplog.messages == [said]


def test_the_region_of_a_bucket_can_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = Bucket.of_endpoint(_read(monkeypatch, **BUCKET, BUCKET_REGION="garage"))
    assert bucket is not None and bucket.address.region == "garage"


def test_empty_values_count_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [*(field.upper() for field in Settings.model_fields), "HF_AUTH_TOKEN"]
    assert _read(monkeypatch, **dict.fromkeys(names, "")) == Settings.model_construct()


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
        ({"HF_TOKEN": " \n", "HF_AUTH_TOKEN": "old"}, "old"),
    ],
)
def test_the_hub_token_goes_by_two_names(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], token: str
) -> None:
    found = _read(monkeypatch, **environment).hf_token
    assert found is not None and found.get_secret_value() == token


@pytest.mark.parametrize(
    "name", ["HF_TOKEN", "HF_AUTH_TOKEN", "CIVITAI_TOKEN", "BUCKET_ACCESS_KEY_ID", "BUCKET_SECRET_ACCESS_KEY"]
)
@pytest.mark.parametrize("secret", ["\udcff\udcfe", "hf_c\n\rX-Other: 1", "hf_can ary", "hf_canaré"])
def test_a_secret_that_no_header_can_carry_is_named_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, name: str, secret: str
) -> None:
    told = _told(monkeypatch, **{name: secret})
    assert told.startswith(f"{name}: got a secret; should be letters, digits and signs of ASCII")
    assert secret not in told and told.isprintable()


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


def test_what_the_sdk_could_not_read_as_a_number_is_taken_away_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.environment._refused", {})
    environment = {"RUNPOD_PING_INTERVAL": "often", "RUNPOD_MIN_MEMORY_GB": "4 GB", "RUNPOD_GPU_TEST_TIMEOUT": " "}
    for name, value in (environment | {"RUNPOD_MIN_DISK_PERCENT": "2.5"}).items():
        monkeypatch.setenv(name, value)
    set_aside_unusable()

    assert not environment.keys() & os.environ.keys()
    assert os.environ["RUNPOD_MIN_DISK_PERCENT"] == "2.5"
    told = _told(monkeypatch)
    assert "RUNPOD_PING_INTERVAL: got 'often'; should be a whole number" in told
    assert "RUNPOD_MIN_MEMORY_GB: got '4 GB'; should be a number" in told
    assert "RUNPOD_GPU_TEST_TIMEOUT" not in told
