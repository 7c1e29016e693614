/** What a person asks of a plan, as texts, and the specification that it makes; and a specification in words. */
import type { MessageInitShape } from "@bufbuild/protobuf";
import { ARRAY, datumOf, datumText, Kind } from "@drey/client";
import { typedNumber } from "./fields";
import { FieldError } from "./use_call";
import type { Selector, SelectorSchema } from "../../gen/drey/common/v1/selector_pb";
import type { ValueSchema } from "../../gen/drey/common/v1/value_pb";
import type { Guard, PlanSpec, PlanSpecSchema } from "../../gen/drey/restore/v1/restore_pb";
import { secondsOf } from "./words";

export interface EditDraft {
  readonly names: string;
  readonly how: "value" | "scale" | "offset";
  readonly text: string;
}

export interface GuardDraft {
  readonly expression: string;
  readonly description: string;
}

export interface GateDraft {
  readonly stage: string;
  readonly how: "failed" | "holds";
  readonly text: string;
}

export interface PlanDraft {
  readonly globs: string;
  readonly leftOut: string;
  readonly device: string;
  readonly isExact: boolean;
  readonly comment: string;
  readonly minutes: string;
  readonly edits: readonly EditDraft[];
  readonly guards: readonly GuardDraft[];
  readonly gates: readonly GateDraft[];
  readonly backAfter: string;
  readonly backOnGuard: boolean;
}

export const EMPTY_DRAFT: PlanDraft = {
  globs: "",
  leftOut: "",
  device: "",
  isExact: false,
  comment: "",
  minutes: "",
  edits: [],
  guards: [],
  gates: [],
  backAfter: "",
  backOnGuard: false,
};

/** What the page knows of a setpoint by the PV's name; undefined: nothing. */
export type KnownSetpoint = { readonly kind: number; readonly labels: readonly string[] | undefined };

const splitNames = (text: string) => text.split(/[\s,]+/).filter(Boolean);
const isGlob = (name: string) => /[*?[\]]/.test(name);

type ValueInit = NonNullable<MessageInitShape<typeof ValueSchema>["data"]>;

/** A value that was typed, in the type of the channel where that is known. */
export function typedValue(text: string, setpoint: KnownSetpoint | undefined, path: string): ValueInit {
  const asText: ValueInit = { case: "stringValue", value: text };
  const kind = setpoint?.kind ?? Kind.None;
  if (kind === Kind.String) return asText;
  if (kind === Kind.Enum) {
    const index = Number(text);
    const isIndex = text.trim() !== "" && Number.isInteger(index) && index >= 0 && !setpoint?.labels?.includes(text);
    return isIndex ? { case: "enumValue", value: { index } as never } : asText;
  }
  if (kind === ARRAY + Kind.String) throw new FieldError(path, "An array of texts cannot be typed here");
  if (kind >= ARRAY)
    return { case: "float64Array", value: { elements: splitNames(text).map((each) => typedNumber(each, path)!) } as never };
  if (/^\s*-?\d+\s*$/.test(text) && !Number.isSafeInteger(Number(text))) return { case: "int64Value", value: BigInt(text) };
  if (kind === Kind.None && !Number.isFinite(Number(text))) return asText;
  const number = typedNumber(text, path);
  if (number === undefined) throw new FieldError(path, "Which value?");
  return { case: "float64Value", value: number };
}

function selectorOf({ globs, device, leftOut }: PlanDraft, names: readonly string[]): MessageInitShape<typeof SelectorSchema> | undefined {
  const patterns = names.length > 0 ? [] : splitNames(globs);
  const without = splitNames(leftOut);
  const isAll = patterns.length === 0 && names.length === 0 && device === "";
  if (isAll && without.length === 0) return undefined;
  return {
    all: isAll,
    names: [...names],
    globs: patterns,
    devices: device === "" ? [] : [device],
    ...(without.length > 0 ? { excluding: { globs: without } } : {}),
  };
}

/** All of a specification but its source. `names`: of these PVs only; none: of what the draft chooses. */
export function specOf(
  draft: PlanDraft,
  names: readonly string[],
  setpointOf: (name: string) => KnownSetpoint | undefined,
): MessageInitShape<typeof PlanSpecSchema> {
  const edits = draft.edits.map(({ names: typed, how, text }, index) => {
    const path = `spec.edits[${index}]`;
    const edited = splitNames(typed);
    if (edited.length === 0) throw new FieldError(`${path}.selector`, "Which PVs?");
    const selector = { names: edited.filter((name) => !isGlob(name)), globs: edited.filter(isGlob) };
    if (how === "value")
      return { selector, edit: { case: how, value: { data: typedValue(text, setpointOf(edited[0]!), `${path}.value`) } as never } as const };
    const number = typedNumber(text, `${path}.linear.${how}`);
    if (number === undefined) throw new FieldError(`${path}.linear.${how}`, "By how much?");
    return { selector, edit: { case: "linear", value: { [how]: number } as never } as const };
  });
  const gates = draft.gates.map(({ stage, how, text }, index) => {
    const path = `spec.gates[${index}]`;
    const afterStage = typedNumber(stage, `${path}.after_stage`, true) ?? 0;
    if (how === "holds") return { afterStage, condition: { case: "mustHold", value: { expression: text } as never } as const };
    return { afterStage, condition: { case: "maxFailed", value: typedNumber(text, `${path}.max_failed`, true) ?? 0 } as const };
  });
  const minutes = typedNumber(draft.minutes, "spec.lifetime");
  const maxFailed = typedNumber(draft.backAfter, "spec.rollback.max_failed", true);
  const selector = selectorOf(draft, names);
  return {
    exact: draft.isExact,
    comment: draft.comment,
    edits,
    guards: draft.guards.map((guard) => ({ ...guard })),
    gates,
    ...(selector === undefined ? {} : { selector }),
    ...(minutes === undefined ? {} : { lifetime: { seconds: BigInt(Math.round(60 * minutes)) } }),
    ...(maxFailed === undefined && !draft.backOnGuard
      ? {}
      : { rollback: { onGuard: draft.backOnGuard, ...(maxFailed === undefined ? {} : { maxFailed }) } }),
  };
}

const selectorWords = (selector: Selector | undefined) =>
  selector?.all ? "all" : [...(selector?.names ?? []), ...(selector?.globs ?? []), ...(selector?.devices ?? [])].join(", ");

const guardWords = ({ expression, description }: Guard) => (description === "" ? expression : `${expression} (${description})`);

/** The rules that a plan was made under, each with its title; what it has none of is not there. */
export function ruleWords(spec: PlanSpec): readonly (readonly [string, string])[] {
  const rules: [string, string][] = [];
  for (const { selector, edit } of spec.edits) {
    const { scale = 1, offset = 0 } = edit.case === "linear" ? edit.value : {};
    const change = edit.case === "value" ? `${datumText(datumOf(edit.value))} instead of the stored value` : `the stored value × ${scale} + ${offset}`;
    rules.push(["Edit", `${selectorWords(selector)}: ${change}`]);
  }
  for (const guard of spec.guards) rules.push(["While it writes", guardWords(guard)]);
  for (const { afterStage, condition } of spec.gates) {
    const words = condition.case === "mustHold" ? guardWords(condition.value) : `at most ${condition.value ?? 0} writes not verified`;
    rules.push([`After stage ${afterStage}`, words]);
  }
  if (spec.rollback !== undefined) {
    const { maxFailed, onGuard } = spec.rollback;
    const when = [maxFailed === undefined ? "" : `after more than ${maxFailed} failures`, onGuard ? "when a guard fails" : ""];
    rules.push(["Goes back on its own", when.filter(Boolean).join(", or ")]);
  }
  const seconds = secondsOf(spec.lifetime);
  if (seconds !== undefined) rules.push(["May be executed for", `${seconds / 60} min`]);
  return rules;
}
