"""The house's rules for the contracts: each is broken once, and found."""

import importlib.util
from pathlib import Path

import pytest
from google.api import annotations_pb2
from google.protobuf.descriptor_pb2 import (
    FieldDescriptorProto,
    FieldOptions,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodOptions,
)
from google.protobuf.descriptor_pool import DescriptorPool

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def rules():
    spec = importlib.util.spec_from_file_location(
        "contracts_rules", ROOT / "tests/tools/contracts_rules.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def built(rules):
    return rules.built().SerializeToString()


@pytest.fixture
def files(built):
    return FileDescriptorSet.FromString(built)


def file_of(files, name):
    return next(file for file in files.file if file.name == name)


def method_of(files, name):
    service = file_of(files, "drey/snapshot/v1/snapshot_service.proto").service[0]
    return next(method for method in service.method if method.name == name)


def field_of(files, file, message, field):
    found = next(m for m in file_of(files, file).message_type if m.name == message)
    return next(f for f in found.field if f.name == field)


def test_the_contracts_keep_the_rules(rules, files):
    assert list(rules.problems(files)) == []


def test_a_file_without_the_options_of_a_language(rules, files):
    options = file_of(files, "drey/job/v1/job.proto").options
    for name in rules.FILE_OPTIONS:
        options.ClearField(name)
    found = list(rules.problems(files))
    assert len(found) == len(rules.FILE_OPTIONS)
    assert "drey/job/v1/job.proto: has no option go_package" in found


@pytest.mark.parametrize(
    ("name", "level", "problem"),
    [
        ("GetSnapshot", MethodOptions.IDEMPOTENCY_UNKNOWN, "GetSnapshot has no idempotency_level"),
        ("TakeSnapshot", MethodOptions.NO_SIDE_EFFECTS, "TakeSnapshot takes a request_id"),
    ],
)
def test_a_method_that_does_not_say_whether_it_may_be_repeated(rules, files, name, level, problem):
    method_of(files, name).options.idempotency_level = level
    (found,) = rules.problems(files)
    assert problem in found


@pytest.mark.parametrize("wrong", ["", "snapshot.get", "catalog.snapshots.get", "snapshot.A.get"])
def test_a_method_without_a_permission_of_the_right_form(rules, files, wrong):
    options = method_of(files, "GetSnapshot").options
    options.Extensions[rules.permission_option] = wrong
    (found,) = rules.problems(files)
    assert "GetSnapshot needs a permission of the form snapshot.resource.verb" in found


def test_a_method_without_its_route(rules, files):
    options = method_of(files, "GetSnapshot").options
    options.Extensions[annotations_pb2.http].get = "/v1/snapshots/{name}"
    (found,) = rules.problems(files)
    assert "GetSnapshot has no field name for its path" in found
    options.Extensions[annotations_pb2.http].get = "/v1/snapshots"
    (found,) = rules.problems(files)
    assert "have the same route get /v1/snapshots" in found
    options.ClearExtension(annotations_pb2.http)
    (found,) = rules.problems(files)
    assert "GetSnapshot has no google.api.http" in found


def test_an_identity_that_a_double_would_merge_with_another(rules, files):
    field = field_of(files, "drey/common/v1/value.proto", "PvRow", "number")
    field.options.jstype = FieldOptions.JS_NORMAL
    (found,) = rules.problems(files)
    assert "PvRow.number" in found


@pytest.mark.parametrize(
    ("name", "language"),
    [
        *(("range", "Go"), ("synchronized", "Java"), ("debugger", "TypeScript"), ("impl", "Rust")),
        *(("decimal", "C#"), ("except", "Python"), ("typealias", "Swift"), ("fun", "Kotlin")),
    ],
)
def test_a_name_that_is_a_keyword_somewhere(rules, files, name, language):
    field_of(files, "drey/common/v1/selector.proto", "Selector", "excluding").name = name
    (found,) = rules.problems(files)
    assert found == f"drey/common/v1/selector.proto: Selector.{name} is a keyword of {language}"


def test_an_enum_value_that_is_a_keyword(rules, files):
    value = file_of(files, "drey/common/v1/value.proto").enum_type[0].value[1]
    value.name = "DEFAULT"
    (found,) = rules.problems(files)
    assert "AlarmSeverity.DEFAULT is a keyword of" in found


def test_an_option_with_the_number_of_a_tutorial(rules, files):
    extension = file_of(files, "drey/common/v1/annotations.proto").extension[0]
    extension.number = 50_001
    assert any("50001" in line for line in rules.problems(files))


def test_descriptors_load_beside_those_of_another_company(files):
    """Its options have the numbers that every tutorial uses."""
    options = (
        (50_001, ".google.protobuf.FieldOptions"),
        (50_002, ".google.protobuf.MethodOptions"),
    )
    other = FileDescriptorProto(
        name="acme/options.proto",
        package="acme",
        syntax="proto3",
        dependency=["google/protobuf/descriptor.proto"],
        extension=[
            FieldDescriptorProto(
                name=f"option_{number}",
                number=number,
                extendee=extendee,
                type=FieldDescriptorProto.TYPE_STRING,
                label=FieldDescriptorProto.LABEL_OPTIONAL,
            )
            for number, extendee in options
        ],
    )
    pool = DescriptorPool()
    for file in (*files.file, other):
        pool.Add(file)
    for number, extendee in options:
        message = pool.FindMessageTypeByName(extendee.lstrip("."))
        assert pool.FindExtensionByNumber(message, number).full_name == f"acme.option_{number}"
        assert len(pool.FindAllExtensions(message)) >= 2
