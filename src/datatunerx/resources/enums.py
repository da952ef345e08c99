"""Every closed set of words, in one place: what YAML, the CRDs, the console and the trainer all accept."""

from enum import StrEnum


class Objective(StrEnum):
    SFT = "SFT"
    DPO = "DPO"
    KTO = "KTO"
    ORPO = "ORPO"


class Method(StrEnum):
    LORA = "lora"
    QLORA = "qlora"
    DORA = "dora"
    FULL = "full"


class Optimizer(StrEnum):
    ADAMW = "adamw"
    SGD = "sgd"


class Scheduler(StrEnum):
    COSINE = "cosine"
    LINEAR = "linear"
    CONSTANT = "constant"


class Precision(StrEnum):
    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


class Quantization(StrEnum):
    NONE = "none"
    INT8 = "int8"
    INT4 = "int4"


class TooLong(StrEnum):
    """What becomes of a row longer than the cutoff length."""

    TRUNCATE = "truncate"
    DROP = "drop"
    SPLIT = "split"
    ERROR = "error"


class TruncateSide(StrEnum):
    """Which end of a row that is too long is cut off."""

    RIGHT = "right"
    LEFT = "left"


class Untrainable(StrEnum):
    """What becomes of a row without one trained token."""

    DROP = "drop"
    ERROR = "error"


class DataFormat(StrEnum):
    AUTO = "auto"
    MESSAGES = "messages"
    ALPACA = "alpaca"
    SHAREGPT = "sharegpt"
    PROMPT_COMPLETION = "prompt-completion"
    PREFERENCE = "preference"
    LABELLED = "labelled"
    TEXT = "text"


class Split(StrEnum):
    TRAIN = "train"
    VALIDATE = "validate"
    TEST = "test"


class Metric(StrEnum):
    EXACT_MATCH = "exact-match"
    ACCURACY = "accuracy"
    FIELD_ACCURACY = "field-accuracy"
    PRECISION = "precision"
    RECALL = "recall"
    F1 = "f1"
    BLEU = "bleu"
    ROUGE_1 = "rouge-1"
    ROUGE_2 = "rouge-2"
    ROUGE_L = "rouge-l"
    PERPLEXITY = "perplexity"
    JUDGE = "judge"
    """What another model says of the answers; it needs `judge` beside the metrics."""

    @property
    def higher_is_better(self) -> bool:
        return self is not Metric.PERPLEXITY


class BleuTokenizer(StrEnum):
    """How sacrebleu cuts text into words."""

    WMT = "13a"
    ZH = "zh"
    INTL = "intl"
    CHAR = "char"
    NONE = "none"


class ChineseUnit(StrEnum):
    """What ROUGE counts in Chinese."""

    CHARACTERS = "characters"
    WORDS = "words"


class StoppingMeasure(StrEnum):
    """What early stopping looks at."""

    LOSS = "loss"
    SCORE = "score"


class StopMode(StrEnum):
    """`keep` writes a checkpoint before the job leaves; `discard` does not."""

    KEEP = "keep"
    DISCARD = "discard"


class RunType(StrEnum):
    INSPECT = "inspect"
    MAKE = "make"
    """A data plugin makes rows of files."""
    TUNE = "tune"
    SCORE = "score"
    EXPORT = "export"
    SERVE = "serve"

    @property
    def reads_only(self) -> bool:
        """Whether it looks at files and needs no device to train or answer on."""
        return self in (RunType.INSPECT, RunType.MAKE)


class RunPhase(StrEnum):
    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    STOPPED = "Stopped"

    @property
    def terminal(self) -> bool:
        return self in (RunPhase.SUCCEEDED, RunPhase.FAILED, RunPhase.STOPPED)


class FinetunePhase(StrEnum):
    PENDING = "Pending"
    RUNNING = "Running"
    SUSPENDED = "Suspended"
    RETRYING = "Retrying"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    STOPPED = "Stopped"

    @property
    def terminal(self) -> bool:
        return self in (FinetunePhase.SUCCEEDED, FinetunePhase.FAILED, FinetunePhase.STOPPED)


class JobPhase(StrEnum):
    PENDING = "Pending"
    FINETUNING = "Finetuning"
    SUSPENDED = "Suspended"
    SCORING = "Scoring"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    STOPPED = "Stopped"

    @property
    def terminal(self) -> bool:
        return self in (JobPhase.SUCCEEDED, JobPhase.FAILED, JobPhase.STOPPED)


class ExperimentPhase(StrEnum):
    PENDING = "Pending"
    RUNNING = "Running"
    SUSPENDED = "Suspended"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    STOPPED = "Stopped"

    @property
    def terminal(self) -> bool:
        return self in (ExperimentPhase.SUCCEEDED, ExperimentPhase.FAILED, ExperimentPhase.STOPPED)


class ScoringPhase(StrEnum):
    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


class ServicePhase(StrEnum):
    PENDING = "Pending"
    RUNNING = "Running"
    FAILED = "Failed"
    STOPPED = "Stopped"


class Engine(StrEnum):
    TRANSFORMERS = "transformers"
    VLLM = "vllm"


class ExportFormat(StrEnum):
    ADAPTER = "adapter"
    HF = "hf"
    GGUF = "gguf"
    OLLAMA = "ollama"


class ExportType(StrEnum):
    """How weights are stored. Those after q8_0 are made by llama.cpp's llama-quantize."""

    AUTO = "auto"
    FLOAT32 = "f32"
    FLOAT16 = "f16"
    BFLOAT16 = "bf16"
    Q8_0 = "q8_0"
    Q6_K = "q6_k"
    Q5_K_M = "q5_k_m"
    Q5_K_S = "q5_k_s"
    Q4_K_M = "q4_k_m"
    Q4_K_S = "q4_k_s"
    Q4_0 = "q4_0"
    Q3_K_M = "q3_k_m"
    Q2_K = "q2_k"


class ExportPhase(StrEnum):
    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


class PluginProvider(StrEnum):
    ENTRY_POINT = "entry-point"
    COMMAND = "command"
