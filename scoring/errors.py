"""Every exception a caller can meet.

    ScoringError
    ├── JobError                  the job file or Job is not usable        (exit code 2)
    │   ├── JobFileInvalid
    │   ├── JobNotFound
    │   ├── TemplateUnfilled
    │   ├── DateInvalid
    │   ├── KeyTaken
    │   ├── KeyInvalid
    │   ├── PathOutsideRoots
    │   ├── StoreUnsupported
    │   ├── UrlInvalid
    │   ├── StoreRefused
    │   ├── ReferenceUnreadable
    │   ├── ReferenceMissing
    │   ├── SampleMissing
    │   └── KeyMissing
    ├── SettingsInvalid           an environment variable cannot be used (exit code 2)
    ├── InputError                the input is not what was promised
    │   ├── NoInputFiles
    │   ├── InputUnreadable
    │   ├── InputChanged
    │   ├── InputColumnsMissing
    │   ├── InputTypeMismatch
    │   ├── InputTypesDiffer
    │   ├── QuarantineUnusable
    │   └── LabelsUnusable
    ├── ModelError                the model cannot be used
    │   ├── RegistryUnreachable
    │   ├── RegistryRefused
    │   ├── ModelNotFound
    │   ├── ModelFilesGone
    │   ├── SignatureMissing
    │   ├── ModelUnsupported
    │   ├── ModelUntrusted
    │   ├── VariantUnavailable
    │   ├── VariantRefused
    │   ├── VariantDamaged
    │   ├── SearchFailed
    │   ├── DeviceUnavailable
    │   ├── ModelDigestMismatch
    │   ├── ModelNotLoaded
    │   ├── ModelHangs
    │   ├── ModelDies
    │   └── ModelFailed
    ├── OutputError               the output cannot be written
    │   ├── OutputOccupied
    │   ├── OutputFull
    │   ├── OutputBusy
    │   ├── OutputClaimed
    │   ├── OutputIncomplete
    │   ├── PartMissing
    │   ├── PartsDiffer
    │   └── RowBalanceBroken
    ├── RunError                  the run is not in a state for this
    │   ├── RunNotFound
    │   ├── RunNotInState
    │   ├── RunFailed
    │   ├── NothingToReplay
    │   ├── ReplayOvertaken
    │   ├── SubmissionRefused
    │   ├── ErrorBudgetExceeded
    │   └── DriftTooSevere
    ├── ServiceError              something we depend on did not answer
    │   ├── BrokerUnreachable
    │   ├── BrokerNotConfigured
    │   ├── LedgerUnreachable
    │   ├── LedgerOutdated
    │   ├── StoreUnreachable
    │   ├── ServiceDied
    │   └── PortUnusable
    └── LeaseLost                 another attempt took the chunk over

Invariant: every constructor argument is passed positionally to ``Exception.__init__`` and the
text is built in ``__str__``; only that shape survives pickle and Celery's JSON backend alike.
"""

from __future__ import annotations

from collections.abc import Sequence

NAMES_SHOWN = 40
"""Most columns that a message names."""


def shown(name: str) -> str:
    """A name from outside as a message shows it: a terminal must not obey what is in it."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in name
    )


def listed(names: Sequence[str]) -> str:
    """Names from outside, the first of them if they are very many."""
    more = f" and {len(names) - NAMES_SHOWN:,} more" if len(names) > NAMES_SHOWN else ""
    return shown(", ".join(names[:NAMES_SHOWN])) + more


class ScoringError(Exception):
    """The base of every error that Nightscore raises on purpose."""


class JobError(ScoringError):
    """The job is not usable as written."""


class JobFileInvalid(JobError):
    """A job file has faults; each names the key, what was found and what would be accepted."""

    def __init__(self, source: str, faults: Sequence[str]) -> None:
        super().__init__(source, faults)
        self.source, self.faults = source, tuple(faults)

    def __str__(self) -> str:
        return "\n".join(f"{self.source}: {fault}" for fault in self.faults)


class JobNotFound(JobError):
    """No job file of that name or path."""

    def __init__(self, job: str, looked_in: str, known: Sequence[str]) -> None:
        super().__init__(job, looked_in, known)
        self.job, self.looked_in, self.known = job, looked_in, tuple(known)

    def __str__(self) -> str:
        known = ", ".join(self.known) or "none"
        return (
            f"no job {self.job!r}: it is neither a TOML file nor the name of one in "
            f"{self.looked_in} (jobs there: {known}). Give a path that ends in .toml, "
            "or set SCORING_JOBS to the folder of your job files."
        )


class TemplateUnfilled(JobError):
    """A path holds a placeholder for which this run has no value."""

    def __init__(self, key: str, template: str, placeholder: str) -> None:
        super().__init__(key, template, placeholder)
        self.key, self.template, self.placeholder = key, template, placeholder

    def __str__(self) -> str:
        hint = (
            "give a logical date with --date"
            if self.placeholder == "date"
            else ("only a scheduled run or one with --date has a slot")
        )
        return (
            f"{self.key} = {self.template!r} needs {{{self.placeholder}}}, "
            f"which this run does not have: {hint}. Nothing was started."
        )


class DateInvalid(JobError):
    """A logical date is not a date."""

    def __init__(self, date: str) -> None:
        super().__init__(date)
        self.date = date

    def __str__(self) -> str:
        return (
            f"the logical date {self.date!r} is not a date. Nothing was started. Give it as "
            "YYYY-MM-DD, for example 2026-11-23."
        )


class KeyTaken(JobError):
    """An idempotency key was used before, for something else."""

    def __init__(self, key: str, run: str, job: str, slot: str) -> None:
        super().__init__(key, run, job, slot)
        self.key, self.run, self.job, self.slot = key, run, job, slot

    def __str__(self) -> str:
        return (
            f"idempotency key {self.key!r} belongs to run {self.run} of job {self.job} for "
            f"{self.slot}. Nothing was started. Use a key of its own for each job and date."
        )


class KeyInvalid(JobError):
    """An idempotency key is no text that every ledger can keep."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key

    def __str__(self) -> str:
        shown = self.key if len(self.key) <= 60 else f"{self.key[:60]}..."
        return (
            f"idempotency key {shown!r} has {len(self.key)} characters and cannot be kept. Nothing "
            "was started. Give 1 to 200 characters, none of them NUL or half of another."
        )


class PathOutsideRoots(JobError):
    """A path of the job leaves the places that jobs may read and write."""

    def __init__(self, key: str, path: str, roots: Sequence[str]) -> None:
        super().__init__(key, path, roots)
        self.key, self.path, self.roots = key, path, tuple(roots)

    def __str__(self) -> str:
        return (
            f"{self.key} is {self.path}, outside the places that jobs may read and write "
            f"({', '.join(self.roots)}). Nothing was read or written there. Use a path below one "
            "of them, or let the operator add the place to SCORING_DATA_ROOTS."
        )


class StoreUnsupported(JobError):
    """A path names a kind of store that this version cannot read or write."""

    def __init__(self, key: str, path: str) -> None:
        super().__init__(key, path)
        self.key, self.path = key, path

    def __str__(self) -> str:
        return (
            f"{self.key} is {self.path}: this version reads and writes local and mounted paths, "
            "s3://, gs:// and az:// only. Nothing was started. Mount the store, or copy the data "
            "to one of these."
        )


class UrlInvalid(JobError):
    """A path names an object store in a way that could mean two places, or none."""

    def __init__(self, key: str, url: str, reason: str) -> None:
        super().__init__(key, url, reason)
        self.key, self.url, self.reason = key, url, reason

    def __str__(self) -> str:
        return (
            f"{self.key} is {self.url}: {self.reason}. Nothing was started. Write it as "
            "s3://bucket/some/folder, without '..', empty segments or a login in it."
        )


class StoreRefused(JobError):
    """An object store answered, and did not let us."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(url, reason)
        self.url, self.reason = url, reason

    def __str__(self) -> str:
        return (
            f"the object store refuses {self.url}: {self.reason}. Nothing was started or published "
            "because of it, the earlier output stands. Check the bucket, "
            "SCORING_STORAGE_OPTIONS or the AWS_* variables of the worker, and what these "
            "credentials may do there."
        )


class ReferenceUnreadable(JobError):
    """The reference profile that the job names cannot be used."""

    def __init__(self, reference: str, reason: str) -> None:
        super().__init__(reference, reason)
        self.reference, self.reason = reference, reason

    def __str__(self) -> str:
        return (
            f"[drift] reference {self.reference!r} cannot be used: {self.reason}. Nothing was "
            "started. Give the path of a profile.json (every run leaves one among its artifacts), "
            '"previous" or "weekday" for what earlier runs left, or "model", whose profile '
            "`scoring models profile` makes."
        )


class SettingsInvalid(ScoringError):
    """An environment variable has a value that cannot be used."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__(faults)
        self.faults = tuple(faults)

    def __str__(self) -> str:
        return (
            f"{'; '.join(self.faults)}. Nothing was started. Set it to what the README's table of "
            "settings says, or leave it out."
        )


class ReferenceMissing(JobError):
    """A model version has no reference profile yet."""

    def __init__(self, model: str) -> None:
        super().__init__(model)
        self.model = model

    def __str__(self) -> str:
        return (
            f"{self.model} has no reference profile yet, so nothing is compared with it. "
            "Give it one: `scoring models profile MODEL --from train.parquet`, or --from-run RUN."
        )


class SampleMissing(JobError):
    """Variants of a model cannot be judged, because there are no rows to judge them by."""

    def __init__(self, model: str) -> None:
        super().__init__(model)
        self.model = model

    def __str__(self) -> str:
        return (
            f"there are no rows to judge variants of {self.model} by. Nothing was searched. Give "
            "some with --from PATH, or keep a sample with the model: `scoring models profile "
            "MODEL --from train.parquet`. A run needs neither: it takes rows of its own input."
        )


class KeyMissing(JobError):
    """Labels cannot be matched with the scores of a job that names no key."""

    def __init__(self, job: str) -> None:
        super().__init__(job)
        self.job = job

    def __str__(self) -> str:
        return (
            f"job {self.job} names no key, so nothing says which label belongs to which row. "
            "Nothing was changed, the scores stand as they are published. Set key to the columns "
            'that identify a row, such as ["id"]; runs from then on can be evaluated.'
        )


class InputError(ScoringError):
    """The input is not what the run was promised."""


class NoInputFiles(InputError):
    """The input path matches no Parquet file."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return (
            f"no Parquet files at {shown(self.path)}. Nothing was scored and the earlier output, "
            "if any, stands. Check [input] path and the date, or wait until the data has landed; "
            "a folder is searched for *.parquet, hidden files (. and _) left out."
        )


class InputUnreadable(InputError):
    """An input file is there but cannot be read as Parquet."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return (
            f"input file {shown(self.path)} cannot be read as Parquet: {shown(self.reason)}. "
            "Nothing is published, the earlier output stands. Write the file again and "
            "start a new run."
        )


class InputChanged(InputError):
    """An input file is no longer the one the run was planned from."""

    def __init__(self, path: str, planned: str, found: str) -> None:
        super().__init__(path, planned, found)
        self.path, self.planned, self.found = path, planned, found

    def __str__(self) -> str:
        return (
            f"input file {shown(self.path)} changed after the run was planned: "
            f"planned {self.planned}, found {self.found}. "
            "Nothing is published, the earlier output stands. "
            "Let the writer finish, then start a new run."
        )


class InputColumnsMissing(InputError):
    """The input lacks columns that the model or the job names."""

    def __init__(self, path: str, missing: Sequence[str], present: Sequence[str]) -> None:
        super().__init__(path, missing, present)
        self.path, self.missing, self.present = path, tuple(missing), tuple(present)

    def __str__(self) -> str:
        return (
            f"input file {shown(self.path)} lacks {listed(self.missing)}; it has "
            f"{listed(self.present) or 'no columns'}. Nothing was scored. "
            "The model's signature, key and passthrough name the columns that must be there."
        )


class InputTypeMismatch(InputError):
    """A column of the input has a type that the model's signature does not accept."""

    def __init__(self, path: str, column: str, found: str, wanted: str) -> None:
        super().__init__(path, column, found, wanted)
        self.path, self.column, self.found, self.wanted = path, column, found, wanted

    def __str__(self) -> str:
        return (
            f"input file {shown(self.path)}: column {shown(self.column)} is {self.found}, "
            f"the model's signature wants {self.wanted}. Nothing was scored. Write the column as "
            f"{self.wanted}, or log the model with a signature that fits the data."
        )


class InputTypesDiffer(InputError):
    """A key or passthrough column has one type in one file and another in the next."""

    def __init__(self, path: str, column: str, found: str, first: str, wanted: str) -> None:
        super().__init__(path, column, found, first, wanted)
        self.path, self.column, self.found = path, column, found
        self.first, self.wanted = first, wanted

    def __str__(self) -> str:
        return (
            f"input file {shown(self.path)}: column {shown(self.column)} is {self.found}, but "
            f"{self.wanted} in {shown(self.first)}. Nothing was scored. Key and passthrough "
            "columns are published as they are. Write this one with the same type in every file."
        )


class QuarantineUnusable(InputError):
    """The rows that a run left in quarantine cannot be scored as they lie there."""

    def __init__(self, run: str, place: str, reason: str) -> None:
        super().__init__(run, place, reason)
        self.run, self.place, self.reason = run, place, reason

    def __str__(self) -> str:
        return (
            f"the quarantine of run {self.run} in {self.place} cannot be replayed: {self.reason}. "
            "Nothing was started, the published scores stand. Write the rows that it names to a "
            "file of their own and score that, or start a new run over the whole input."
        )


class LabelsUnusable(InputError):
    """Labels of a run cannot be read, or not be matched with its scores."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return (
            f"the labels at {self.path} cannot be used: {self.reason}. Nothing was changed, the "
            "scores stand as they are published. Give Parquet files with the columns of the job's "
            "key and one of the label, a row for each key."
        )


class ModelError(ScoringError):
    """The model cannot be used."""


class RegistryUnreachable(ModelError):
    """The MLflow registry did not answer."""

    def __init__(self, uri: str, reason: str) -> None:
        super().__init__(uri, reason)
        self.uri, self.reason = uri, reason

    def __str__(self) -> str:
        return (
            f"the MLflow registry at {self.uri} did not answer: {self.reason}. Nothing was "
            "started, the earlier output stands, and a scheduled slot waits until it is back. "
            "Check MLFLOW_TRACKING_URI and that the registry is up, then start the run again. A "
            'job with on_registry_outage = "last" goes on with the version that it named last.'
        )


class RegistryRefused(ModelError):
    """The MLflow registry answered, but not to us."""

    def __init__(self, uri: str, reason: str) -> None:
        super().__init__(uri, reason)
        self.uri, self.reason = uri, reason

    def __str__(self) -> str:
        return (
            f"the MLflow registry at {self.uri} refused to answer: {self.reason}. Nothing was "
            "started, the earlier output stands. Check MLFLOW_TRACKING_URI and the name and "
            "password, or the token, that MLflow is given, then start the run again."
        )


class ModelNotFound(ModelError):
    """The registry has no such model, alias, stage or version."""

    def __init__(self, model: str, uri: str, reason: str) -> None:
        super().__init__(model, uri, reason)
        self.model, self.uri, self.reason = model, uri, reason

    def __str__(self) -> str:
        return (
            f"{self.model} is not in the registry at {self.uri}: {self.reason}. Nothing was "
            "started. Register the model, or give it the alias: "
            "MlflowClient().set_registered_model_alias(name, 'production', version)."
        )


class ModelFilesGone(ModelError):
    """The version is registered, but its files are not where the registry says."""

    def __init__(self, model: str, place: str) -> None:
        super().__init__(model, place)
        self.model, self.place = model, place

    def __str__(self) -> str:
        return (
            f"files of {self.model} are gone from {self.place}, where the registry says they are. "
            "Nothing is published, the earlier output stands. Register the model again as a new "
            "version, or put the files back, then start a new run."
        )


class SignatureMissing(ModelError):
    """The model was logged without a signature, so its inputs cannot be checked."""

    def __init__(self, model: str) -> None:
        super().__init__(model)
        self.model = model

    def __str__(self) -> str:
        return (
            f"{self.model} has no signature, so no row could be checked against it; nothing was "
            "started. Add one and register again:\n"
            "    from mlflow.models import infer_signature\n"
            "    signature = infer_signature(X, model.predict(X))\n"
            "    mlflow.<flavor>.log_model(model, name='model', signature=signature,\n"
            "                              registered_model_name='...')\n"
            "or, for a model already logged, mlflow.models.set_signature(uri, signature) with the "
            "uri that log_model returned (models:/m-...)."
        )


class ModelUnsupported(ModelError):
    """The model, or a type in its signature, is of a kind that cannot be scored."""

    def __init__(self, model: str, reason: str) -> None:
        super().__init__(model, reason)
        self.model, self.reason = model, reason

    def __str__(self) -> str:
        return f"{self.model} cannot be scored: {self.reason}. Nothing is published."


class ModelUntrusted(ModelError):
    """A model would run code, and comes from a registry whose code may not run here."""

    def __init__(self, model: str, why: str, registry: str, trusted: Sequence[str]) -> None:
        super().__init__(model, why, registry, trusted)
        self.model, self.why, self.registry = model, why, registry
        self.trusted = tuple(trusted)

    def __str__(self) -> str:
        return (
            f"{self.model} comes from the registry at {self.registry}, whose models may not run "
            f"code here, and it would: {self.why}. Nothing of it was loaded, and nothing is "
            f"published. Trusted are {', '.join(self.trusted)}. Register the model as ONNX, which "
            "is data and runs from anywhere, or let the operator add the registry to "
            "SCORING_TRUSTED_REGISTRIES."
        )


class VariantUnavailable(ModelError):
    """The job asks for a variant that cannot be had of this model on this device."""

    def __init__(self, model: str, variant: str, available: Sequence[str], reason: str) -> None:
        super().__init__(model, variant, available, reason)
        self.model, self.variant = model, variant
        self.available, self.reason = tuple(available), reason

    def __str__(self) -> str:
        usable = f", or one of: {', '.join(self.available)}" if self.available else ""
        return (
            f"{self.model} has no variant {self.variant}: {self.reason.rstrip('.')}. Nothing was "
            f'scored, the earlier output stands. Set [precision] variant = "auto"{usable}, or '
            "another [execution] device."
        )


class VariantRefused(ModelError):
    """The variant that the job asks for does not agree with native within the job's limits."""

    def __init__(self, model: str, variant: str, reasons: Sequence[str], rows: int) -> None:
        super().__init__(model, variant, reasons, rows)
        self.model, self.variant = model, variant
        self.reasons, self.rows = tuple(reasons), rows

    def __str__(self) -> str:
        return (
            f"{self.model} may not be scored as {self.variant}: on {self.rows:,} rows against "
            f"native, {'; '.join(self.reasons)}. Nothing was scored, the earlier output stands. "
            'Set [precision] variant = "auto" to use the fastest that passes, or widen the limit '
            "if your scores can bear it; `scoring models variants --json` has every number."
        )


class VariantDamaged(ModelError):
    """The files of a built variant are not those that were judged."""

    def __init__(self, model: str, variant: str, place: str) -> None:
        super().__init__(model, variant, place)
        self.model, self.variant, self.place = model, variant, place

    def __str__(self) -> str:
        return (
            f"the {self.variant} variant of {self.model} in {self.place} is missing or is not the "
            "one that passed the gate. Nothing is published. Let all workers share "
            "SCORING_ARTIFACTS, run `scoring models variants MODEL --again` to build it anew, then "
            "start a new run."
        )


class SearchFailed(ModelError):
    """The search for a variant that the job names did not end well; another may."""

    def __init__(self, model: str, variant: str, reason: str) -> None:
        super().__init__(model, variant, reason)
        self.model, self.variant, self.reason = model, variant, reason

    def __str__(self) -> str:
        return (
            f"the {self.variant} variant of {self.model} could not be found: {self.reason}. "
            "Nothing was scored, the earlier output stands. It is searched for again. See the "
            "worker's log if this repeats."
        )


class DeviceUnavailable(ModelError):
    """The job asks for a device that this worker cannot use; never a silent slow path."""

    def __init__(self, device: str, found: str) -> None:
        super().__init__(device, found)
        self.device, self.found = device, found

    def __str__(self) -> str:
        return (
            f"the job asks for device {self.device}, but this worker got {self.found}. Nothing was "
            "scored here. Run a worker with that device on the job's queue (`scoring doctor` says "
            'what is missing), or set [execution] device = "auto".'
        )


class ModelDigestMismatch(ModelError):
    """The registry now serves other bytes than those the run was pinned to."""

    def __init__(self, model: str, pinned: str, found: str) -> None:
        super().__init__(model, pinned, found)
        self.model, self.pinned, self.found = model, pinned, found

    def __str__(self) -> str:
        return (
            f"{self.model} was pinned with digest {self.pinned[:12]} but its files now have "
            f"{self.found[:12]}: somebody changed a registered version in place. Nothing is "
            "published. Register the change as a new version and start a new run."
        )


class ModelNotLoaded(ModelError):
    """The model's own code raised while it was loaded, or something that it needs is missing."""

    def __init__(self, model: str, reason: str) -> None:
        super().__init__(model, reason)
        self.model, self.reason = model, reason

    def __str__(self) -> str:
        return (
            f"{self.model} does not load on this worker: {self.reason.rstrip('.')}. Nothing was "
            "scored, the earlier output stands. Let the workers have the packages that it was "
            "logged with, or register a version that loads, then start a new run."
        )


class ModelHangs(ModelError):
    """A call of the model takes longer than the job allows."""

    def __init__(self, model: str, seconds: float) -> None:
        super().__init__(model, seconds)
        self.model, self.seconds = model, seconds

    def __str__(self) -> str:
        return (
            f"{self.model} did not answer within {self.seconds:g} s. Nothing of this attempt is "
            "kept, the earlier output stands; the next attempt looks for the row that does it. "
            "Set [execution] batch_seconds higher if the model is only slow."
        )


class ModelDies(ModelError):
    """The model ends or hangs every process it is loaded into, whatever rows it is given."""

    def __init__(self, model: str, reason: str) -> None:
        super().__init__(model, reason)
        self.model, self.reason = model, reason

    def __str__(self) -> str:
        return (
            f"{self.model} cannot be scored even in a process of its own: {self.reason}. Nothing "
            "is published, the earlier output stands. See the worker's log for where it happened. "
            "Register a mended version, then start a new run."
        )


class ModelFailed(ModelError):
    """The model raised, or returned something that does not fit its input."""

    def __init__(self, model: str, reason: str) -> None:
        super().__init__(model, reason)
        self.model, self.reason = model, reason

    def __str__(self) -> str:
        return f"{self.model} failed while scoring: {self.reason}"


class OutputError(ScoringError):
    """The output cannot be written or published."""


class OutputOccupied(OutputError):
    """The output path holds something that Nightscore did not write."""

    def __init__(self, path: str, found: str) -> None:
        super().__init__(path, found)
        self.path, self.found = path, found

    def __str__(self) -> str:
        return (
            f"output path {self.path} holds {self.found}, which Nightscore did not write, so it "
            "was left alone. Publishing replaces a whole folder: name one of its own in "
            "[output] path, or move those files away."
        )


class OutputFull(OutputError):
    """There is no room left where parts, manifest or report are written."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return (
            f"no space left under {self.path} ({self.reason}). Nothing of this run is published, "
            "the earlier output stands, and finished chunks are kept. Check what "
            "fills it and free some space, then `scoring retry` goes on from there."
        )


class OutputBusy(OutputError):
    """Another finisher is exchanging a folder beside the output, and does not come to an end."""

    def __init__(self, folder: str, seconds: float) -> None:
        super().__init__(folder, seconds)
        self.folder, self.seconds = folder, seconds

    def __str__(self) -> str:
        return (
            f"another process has held the right to publish in {self.folder} for more than "
            f"{self.seconds:.0f} s; it may be frozen. Scored parts are kept, the earlier output "
            "stands. The run is published as soon as that process goes on. Let it, or end it."
        )


class OutputClaimed(OutputError):
    """Another run is being published in the same place of a store."""

    def __init__(self, output: str, owner: str, claim: str) -> None:
        super().__init__(output, owner, claim)
        self.output, self.owner, self.claim = output, owner, claim

    def __str__(self) -> str:
        return (
            f"run {self.owner} is being published to {self.output}, or its publisher died there. "
            "Nothing of this run is published, its parts are safe. Wait for the end of the other, "
            "then `scoring retry` publishes this one. Give each job an output of its own; if no "
            f"ledger knows that run any more, delete {self.claim}."
        )


class OutputIncomplete(OutputError):
    """Publishing to a store stopped after the earlier output had begun to be removed."""

    def __init__(self, output: str, run: str, reason: str) -> None:
        super().__init__(output, run, reason)
        self.output, self.run, self.reason = output, run, reason

    def __str__(self) -> str:
        return (
            f"publishing run {self.run} to {self.output} stopped half-way: {self.reason}. Readers "
            "find no _SUCCESS there, so nobody takes it for complete; the input and what the run "
            f"has staged are safe. Run `scoring retry {self.run}`, which publishes it, or score "
            "the same input anew."
        )


class PartMissing(OutputError):
    """What a chunk has written is not where it was staged."""

    def __init__(self, name: str, staging: str) -> None:
        super().__init__(name, staging)
        self.name, self.staging = name, staging

    def __str__(self) -> str:
        return (
            f"{self.name} is gone from {self.staging}, where it waited for being published. "
            "Nothing is published, the earlier output stands. Check what removed it (clean-up jobs "
            "and lifecycle rules must spare .nightscore), then start a new run."
        )


class PartsDiffer(OutputError):
    """Two parts of a run have different columns or types; never published."""

    def __init__(self, run: str, one: str, other: str) -> None:
        super().__init__(run, one, other)
        self.run, self.one, self.other = run, one, other

    def __str__(self) -> str:
        return (
            f"run {self.run}: its parts do not have the same columns: {self.one} in one, "
            f"{self.other} in another. Nothing is published, the earlier output stands. The "
            "model's outputs change with its input. Name their types in its signature "
            "(infer_signature(X, model.predict(X))). Register it again, then start a new run."
        )


class RowBalanceBroken(OutputError):
    """Rows in and rows out do not add up; never published."""

    def __init__(self, run: str, rows_in: int, rows_scored: int, rows_quarantined: int) -> None:
        super().__init__(run, rows_in, rows_scored, rows_quarantined)
        self.run, self.rows_in = run, rows_in
        self.rows_scored, self.rows_quarantined = rows_scored, rows_quarantined

    def __str__(self) -> str:
        return (
            f"run {self.run}: {self.rows_in} rows in, but {self.rows_scored} scored and "
            f"{self.rows_quarantined} quarantined. Nothing is published, the earlier output "
            "stands. This is a fault in Nightscore or a damaged disk: keep the run's folder "
            "and report it."
        )


class RunError(ScoringError):
    """The run is not in a state for what was asked."""


class RunNotFound(RunError):
    """The ledger has no such run."""

    def __init__(self, run: str) -> None:
        super().__init__(run)
        self.run = run

    def __str__(self) -> str:
        return f"no run {self.run!r} in the ledger. `scoring runs` lists the latest ones."


class RunNotInState(RunError):
    """The run exists, but what was asked does not apply to its state."""

    def __init__(self, run: str, state: str, wanted: str) -> None:
        super().__init__(run, state, wanted)
        self.run, self.state, self.wanted = run, state, wanted

    def __str__(self) -> str:
        return f"run {self.run} is {self.state}; this needs a run that is {self.wanted}."


class RunFailed(RunError):
    """The run ended without publishing."""

    def __init__(self, run: str, state: str, reason: str) -> None:
        super().__init__(run, state, reason)
        self.run, self.state, self.reason = run, state, reason

    def __str__(self) -> str:
        return f"run {self.run} is {self.state}: {self.reason}"


class NothingToReplay(RunError):
    """No row of the run is in quarantine."""

    def __init__(self, run: str) -> None:
        super().__init__(run)
        self.run = run

    def __str__(self) -> str:
        return (
            f"run {self.run} has no row in quarantine, so there is nothing to replay. Nothing was "
            "started. See `scoring status` for what was replayed before."
        )


class ReplayOvertaken(RunError):
    """Rows that a replay scored have meanwhile been published by another one."""

    def __init__(self, run: str, replay: str, other: str) -> None:
        super().__init__(run, replay, other)
        self.run, self.replay, self.other = run, replay, other

    def __str__(self) -> str:
        return (
            f"replay {self.replay} of run {self.run} was overtaken by {self.other}, which scored "
            "the same rows. Nothing is published of this one, so no row is doubled. Run `scoring "
            f"replay {self.run}` for what is in quarantine now; if {self.other} has failed, "
            f"`scoring retry {self.other}` first."
        )


class SubmissionRefused(RunError):
    """A caller has submitted as many runs as they may for now."""

    def __init__(self, caller: str, limit: int, seconds: float) -> None:
        super().__init__(caller, limit, seconds)
        self.caller, self.limit, self.seconds = caller, limit, seconds

    def __str__(self) -> str:
        return (
            f"{self.caller} may submit {self.limit} runs a minute and has used them up. Nothing "
            f"was started. Submit it again in {self.seconds:.1f} s, or let the operator raise "
            "SCORING_SUBMISSIONS_PER_MINUTE. Give each submission an idempotency key, and one "
            "that is sent again starts nothing and costs nothing."
        )


class ErrorBudgetExceeded(RunError):
    """More rows were quarantined than the job allows."""

    def __init__(self, quarantined: int, rows: int, budget: float, where: str, why: str) -> None:
        super().__init__(quarantined, rows, budget, where, why)
        self.quarantined, self.rows, self.budget = quarantined, rows, budget
        self.where, self.why = where, why

    def __str__(self) -> str:
        return (
            f"{self.quarantined} of {self.rows} rows could not be scored "
            f"({self.quarantined / max(self.rows, 1):.2%}; [execution] error_budget allows "
            f"{self.budget:.2%}). Most common reason: {self.why}. Nothing is published, the "
            f"earlier output stands. The rows, each with its reason, are in {self.where}."
        )


class DriftTooSevere(RunError):
    """The job says that drift of this severity fails the run."""

    def __init__(self, severity: str, column: str | None, score: float | None, report: str) -> None:
        super().__init__(severity, column, score, report)
        self.severity, self.column, self.score, self.report = severity, column, score, report

    def __str__(self) -> str:
        score = "" if self.score is None else f", {self.score:.3f}"
        most = f" (most of all {self.column}{score})" if self.column else ""
        return (
            f"drift is {self.severity}{most} and the job says fail. Nothing is published, the "
            f"earlier output stands. See {self.report}."
        )


class ServiceError(ScoringError):
    """Something that Nightscore depends on did not answer."""


class BrokerUnreachable(ServiceError):
    """The broker did not answer; a run that was already recorded is safe."""

    def __init__(self, url: str, reason: str, run: str | None = None) -> None:
        super().__init__(url, reason, run)
        self.url, self.reason, self.run = url, reason, run

    def __str__(self) -> str:
        safe = (
            f"Run {self.run} is recorded in the ledger and the sweep will start it when the "
            "broker is back; do not submit it again."
            if self.run
            else "Nothing was started."
        )
        return (
            f"the broker at {self.url} did not answer: {self.reason}. {safe} "
            "Check SCORING_BROKER_URL and that Redis or Valkey is up."
        )


class BrokerNotConfigured(ServiceError):
    """No broker is configured and no embedded stack is running."""

    def __init__(self, home: str) -> None:
        super().__init__(home)
        self.home = home

    def __str__(self) -> str:
        return (
            f"no broker: SCORING_BROKER_URL is not set and no embedded stack runs in {self.home}. "
            "Nothing was started. Run `scoring up` in another terminal, or use `scoring run`, "
            "which brings its own."
        )


class LedgerUnreachable(ServiceError):
    """The ledger's database did not answer."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(url, reason)
        self.url, self.reason = url, reason

    def __str__(self) -> str:
        return (
            f"the ledger at {self.url} did not answer: {self.reason}. Nothing was changed; "
            "published output is not touched. Check SCORING_DATABASE_URL and the database."
        )


class LedgerOutdated(ServiceError):
    """The database has an older or newer set of tables than this version needs."""

    def __init__(self, url: str, found: str, needed: str) -> None:
        super().__init__(url, found, needed)
        self.url, self.found, self.needed = url, found, needed

    def __str__(self) -> str:
        return (
            f"the ledger at {self.url} is at revision {self.found}, this version needs "
            f"{self.needed}. Nothing was changed. Run `scoring db upgrade`."
        )


class StoreUnreachable(ServiceError):
    """An object store did not answer, however often it was asked."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(url, reason)
        self.url, self.reason = url, reason

    def __str__(self) -> str:
        return (
            f"the object store did not answer for {self.url}: {self.reason}. Finished chunks and "
            "what is published are safe; the attempt is made again. Check that the store is up "
            "and the endpoint in SCORING_STORAGE_OPTIONS or AWS_ENDPOINT_URL is right."
        )


class ServiceDied(ServiceError):
    """An embedded service did not start, or keeps dying."""

    def __init__(self, service: str, reason: str, log: str) -> None:
        super().__init__(service, reason, log)
        self.service, self.reason, self.log = service, reason, log

    def __str__(self) -> str:
        return (
            f"the embedded {self.service} {self.reason}. Runs in the ledger are safe and go on "
            f"when it is back. Its log: {self.log}"
        )


class PortUnusable(ServiceError):
    """An address cannot be listened on."""

    def __init__(self, host: str, port: int, reason: str) -> None:
        super().__init__(host, port, reason)
        self.host, self.port, self.reason = host, port, reason

    def __str__(self) -> str:
        return (
            f"cannot listen on {self.host} port {self.port}: {self.reason}. Nothing was started; "
            "runs go on as they do. Give another --port, or 0 for a free one; --host must be an "
            "address of this machine."
        )


class LeaseLost(ScoringError):
    """A worker tried to renew or commit a chunk that another has since taken over."""

    def __init__(self, chunk: str, mine: int, current: int | None) -> None:
        super().__init__(chunk, mine, current)
        self.chunk, self.mine, self.current = chunk, mine, current

    def __str__(self) -> str:
        to = f"to attempt {self.current}" if self.current != self.mine else "because the run ended"
        return (
            f"chunk {self.chunk}: attempt {self.mine} lost its lease {to}. "
            "Its output was dropped, so no row is lost or doubled. "
            "If this repeats, plan smaller chunks or raise SCORING_LEASE_SECONDS."
        )
