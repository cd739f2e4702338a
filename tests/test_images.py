"""What AWS's training images hold, and what each module's requirements do to them.

The table images.json is read from AWS's sources; here it is held against the requirements files: each is resolved for the
image that it is installed in, and must leave torch alone where packages of the image are compiled against it.
"""

import datetime
from pathlib import Path

import pytest
import yaml
from job_requests import job_request
from local_sagemaker.environments import requirement_lines
from resolution import pins, resolve
from sagemaker.core import image_uris
from workshop.checks.image_checks import check_image
from workshop.checks.images import Image, ImageError, find_image, image_address, known_images, torch_of
from workshop.checks.instances import gpu_count
from workshop.checks.request import NOTE, OK, PROBLEM, WARNING

ROOT = Path(__file__).resolve().parents[1]
REGISTRY = "763104351884.dkr.ecr.us-east-1.amazonaws.com"
NEW, OLD = "pytorch:2.13-cu133-amzn2023-sagemaker", "pytorch-training:2.10.0-gpu-py313"


def default_image(instance_type: str, region: str = "us-east-1") -> str:
    """As the notebooks find it."""
    return image_uris.retrieve(
        "pytorch",
        region,
        version="2.10.0",
        py_version="py313",
        instance_type=instance_type,
        image_scope="training",
    )


def known(name: str) -> Image:
    image = find_image(f"{REGISTRY}/{name}")
    assert image, f"images.json does not have {name}"
    return image


def machines() -> list[tuple[str, str, dict]]:
    """Module, recipe and row of every machines.yaml."""
    return [
        (path.parent.name, recipe, row)
        for path in sorted(ROOT.glob("[0-9][0-9]_*/machines.yaml"))
        for recipe, row in yaml.safe_load(path.read_text()).items()
    ]


def installations() -> dict[str, tuple[Path, str]]:
    """Requirements file and image: of each recipe, and for files that no recipe has, the GPU image of the SDK.

    Files of the same content count once: several modules have the same.
    """
    found = {}
    for module, _, row in machines():
        if row["requirements"]:
            address = image_address(default_image(row["instance_type"]), row["image"])
            found[ROOT / module / "scripts" / row["requirements"], address.partition("/")[2]] = None
    unnamed = set(ROOT.glob("[0-9][0-9]_*/scripts/requirements*.txt")) - {file for file, _ in found}
    pairs = [*found, *((file, OLD) for file in sorted(unnamed))]
    once = {(*sorted(requirement_lines(file)), name): (file, name) for file, name in reversed(pairs)}
    return {f"{file.parts[-3]}/{file.name} in {name}": (file, name) for file, name in reversed(once.values())}


def there(image: Image) -> dict[str, str]:
    return {
        "torch": image.torch,
        "torchvision": image.also["torchvision"],
        "torchaudio": image.also["torchaudio"],
    }


@pytest.mark.parametrize("image", known_images(), ids=lambda image: image.name)
def test_a_row_of_the_table_is_whole(image):
    released, until = (datetime.date.fromisoformat(day) for day in (image.released, image.patched_until))
    assert until.replace(year=until.year - 1) == released, "AWS patches an image for a year"
    assert (image.device == "gpu") == bool(image.cuda) == bool(image.compiled)
    assert all(image.torch.rpartition(".")[0] in tag for tag in image.tags)
    assert image.files and image.entry_point
    assert find_image(f"{REGISTRY}/{image.repository}:{image.tags[-1]}") == image


@pytest.mark.parametrize(("module", "recipe", "row"), machines(), ids=lambda part: str(part)[:30])
def test_every_recipes_image_is_known_and_of_the_instances_kind(module, recipe, row):
    image = find_image(image_address(default_image(row["instance_type"]), row["image"]))
    gpus = gpu_count(row["instance_type"], "us-east-1")
    assert image and gpus is not None
    assert image.device == ("gpu" if gpus else "cpu")


def test_an_image_is_found_in_the_registry_of_the_default():
    default = default_image("ml.g6.xlarge", "eu-south-1")
    assert image_address(default, "") == default
    assert image_address(default, NEW) == f"692866216735.dkr.ecr.eu-south-1.amazonaws.com/{NEW}"


@pytest.mark.parametrize(
    "wrong", ["2.13-cu133-amzn2023-sagemaker", f"{REGISTRY}/{NEW}:latest", "pytorch:", "a b:c"]
)
def test_an_image_without_repository_or_tag_is_refused(wrong):
    with pytest.raises(ImageError, match="repository:tag"):
        image_address(default_image("ml.g6.xlarge"), wrong)


@pytest.mark.job
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("file", "name"), installations().values(), ids=installations())
def test_requirements_leave_the_torch_of_the_image(file, name, tmp_path):
    image = known(name)
    # Wheels only: what has to be compiled first would take the job's time, and the tools are not in every image.
    done = resolve(
        file, tmp_path / "out.txt", "--only-binary", ":all:", python=image.python, there=there(image)
    )
    assert done.returncode == 0, done.stderr
    resolved = pins(tmp_path / "out.txt")
    moved = {
        key: resolved[key] for key, version in there(image).items() if resolved.get(key, version) != version
    }
    assert not (image.compiled and moved), f"{file} brings {moved} into {image}"


# Python's own from 3.11 or a later one on, so that nothing asks for them there.
BACKPORTS = {
    "async-timeout",
    "backports-strenum",
    "exceptiongroup",
    "importlib-metadata",
    "tomli",
    "typing-extensions",
    "zipp",
}
ON_CPUS = {key: pair for key, pair in installations().items() if "-cpu-" in pair[1]}


@pytest.mark.job
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("file", "name"), ON_CPUS.values(), ids=ON_CPUS)
def test_what_the_python_of_the_tests_gets_the_image_s_gets_too(file, name, tmp_path):
    """Jobs on CPUs run in the tests; verl imports orjson undeclared, and tensordict brings it before Python 3.13 alone."""
    image, brought = known(name), []
    for python in ("3.11", image.python):
        done = resolve(file, tmp_path / f"{python}.txt", python=python, there=there(image))
        assert done.returncode == 0, done.stderr
        brought.append(set(pins(tmp_path / f"{python}.txt")))
    assert brought[0] - brought[1] <= BACKPORTS, f"{file}: name what a job imports of these in it"


@pytest.mark.job
@pytest.mark.timeout(300)
def test_requirements_that_move_torch_are_noticed(tmp_path):
    """vLLM over the SDK's image, as preflight refuses it below: the resolution sees it too."""
    image, file = known(OLD), ROOT / "02_grpo_trl_accelerate/scripts/requirements-gpu.txt"
    assert resolve(file, tmp_path / "out.txt", python=image.python, there=there(image)).returncode == 0
    assert pins(tmp_path / "out.txt")["torch"] == torch_of("vllm", "0.30.0") != image.torch


def test_every_vllm_of_a_job_is_in_the_table():
    """Preflight knows which torch each brings; that the container's two go together, its lock file's test resolves."""
    locked = pins(ROOT / "05_grpo_verl/container/requirements.txt")
    assert torch_of("vllm", locked["vllm"]) == locked["torch"]
    files = ROOT.glob("[0-9][0-9]_*/scripts/requirements*.txt")
    versions = {pins_of["vllm"] for pins_of in map(pins, files) if "vllm" in pins_of}
    assert versions == {"0.30.0"}  # more of them: resolve each


def test_vllm_and_unsloth_in_4_bits_install_vllms_plugin():
    """vLLM moved bitsandbytes to a package of its own in 0.28; unsloth_zoo ends without it."""
    lines = requirement_lines(ROOT / "04_grpo_unsloth/scripts/requirements-gpu.txt")
    assert {line.partition("==")[0] for line in lines} >= {
        "vllm",
        "vllm-bnb-plugin",
        "bitsandbytes",
        "unsloth",
    }


@pytest.fixture
def ask(tmp_path):
    """ask(image, requirements="vllm==0.30.0", ...) -> (status, text) of the lines of check_image."""

    def asked(image: str, requirements: str | None = None, settings: dict | None = None, **changes):
        if requirements is not None:
            (tmp_path / "requirements-gpu.txt").write_text(requirements)
        plain = {"local": False, "instance_type": "ml.g6.xlarge", "gpus": 1, "source_dir": tmp_path}
        file = None if requirements is None else "requirements-gpu.txt"
        request = job_request(**{**plain, "image": image, "requirements": file, **changes})
        found = list(check_image(request, settings or {}))
        return [check.status for check in found], "\n".join(check.detail for check in found)

    return asked


def test_a_sound_image_is_shown_with_what_it_holds(ask):
    statuses, text = ask(f"{REGISTRY}/{NEW}", "vllm==0.30.0\n", {"use_vllm": True})
    assert statuses == [OK]
    assert "Python 3.12, torch 2.13.0, CUDA 13.3.0, flash-attn 2.8.3" in text and "2027-07-20" in text


def test_another_torch_under_compiled_packages_is_refused(ask):
    statuses, text = ask(f"{REGISTRY}/{OLD}", "trl==1.16.0\nvllm==0.30.0\n", {"use_vllm": True})
    assert statuses == [PROBLEM]
    assert "puts torch 2.13.0 in the place of the image's 2.10.0" in text
    assert "flash-attn 2.8.3 and transformer-engine 2.11" in text and f"choose {NEW}" in text


def test_a_vllm_that_is_not_in_the_table_is_a_warning(ask):
    statuses, text = ask(f"{REGISTRY}/{NEW}", "vllm==0.99.0\n")
    assert statuses == [OK, WARNING] and "torch_of in images.json" in text
    assert ask(f"{REGISTRY}/{NEW}", "vllm>=0.30\n")[0] == [OK, WARNING]


def test_a_cpu_image_with_gpus_and_the_reverse_are_refused(ask):
    cpu = default_image("ml.c5.xlarge")
    statuses, text = ask(cpu)
    assert statuses == [PROBLEM] and "made for CPUs" in text and "ml.g6.xlarge" in text
    statuses, text = ask(f"{REGISTRY}/{NEW}", instance_type="ml.c5.xlarge", gpus=0)
    assert statuses == [PROBLEM] and "made for GPUs" in text and "ml.c5.xlarge" in text
    assert ask(cpu, local=True)[0] == [OK]  # there an instance type is only a name


@pytest.mark.parametrize("requirements", [None, "verl==0.9.1\n"])
def test_verls_rollout_by_vllm_without_it_is_refused(ask, requirements):
    statuses, text = ask(default_image("ml.g6.xlarge"), requirements, {"rollout_name": "vllm"})
    assert statuses == [PROBLEM] and "image_uri" in text and "05_grpo_verl/container" in text
    assert ask(default_image("ml.g6.xlarge"), requirements, {"rollout_name": "hf"})[0] == [OK]


def test_trls_rollout_by_vllm_without_requirements_is_refused(ask):
    statuses, text = ask(f"{REGISTRY}/{NEW}", None, {"use_vllm": True})
    assert statuses == [PROBLEM] and 'requirements="requirements-gpu.txt"' in text


def test_an_image_of_ones_own_is_not_judged(ask):
    own = "111122223333.dkr.ecr.us-east-1.amazonaws.com/rl-workshop-verl:verl-0.9.1-0123456789ab"
    statuses, text = ask(own, None, {"rollout_name": "vllm"})
    assert statuses == [NOTE] and own in text
