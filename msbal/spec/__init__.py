"""The run spec: frozen pydantic models, loading, overrides, JSON Schema."""

from msbal.spec.balance import BalanceSpec, balance_models
from msbal.spec.base import SpecModel
from msbal.spec.data import DataSpec
from msbal.spec.load import dump_spec, load_spec, parse_spec, save_spec
from msbal.spec.mapping import apply_override, differences, put, read_mapping
from msbal.spec.run import EvaluateSpec, LogSpec, RunSpec, check_length, run_spec_model
from msbal.spec.schedule import OptimizerSpec, ScheduleSpec
from msbal.spec.schema import run_schema

__all__ = [
    "BalanceSpec", "DataSpec", "EvaluateSpec", "LogSpec", "OptimizerSpec", "RunSpec", "ScheduleSpec",
    "SpecModel", "apply_override", "balance_models", "check_length", "differences", "dump_spec",
    "load_spec", "parse_spec", "put", "read_mapping", "run_schema", "run_spec_model", "save_spec",
]  # fmt: skip
