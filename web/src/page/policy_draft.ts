/** A restore policy as the texts that a person edits. */
import { create } from "@bufbuild/protobuf";
import { typedDuration, typedNumber } from "./fields";
import { secondsOf } from "./words";
import { Completion, RestorePolicySchema, type RestorePolicy } from "../../gen/drey/catalog/v1/catalog_pb";

const FIELDS = ["completion", "doneChannel", "doneValue", "timeout", "settle", "stage", "rampStep", "rampRate", "allowedLow", "allowedHigh"] as const;

export type PolicyDraft = Readonly<Record<(typeof FIELDS)[number], string>>;
export type PolicyField = keyof PolicyDraft;

export const isPolicyField = (field: string): field is PolicyField => (FIELDS as readonly string[]).includes(field);

/** As text; of what is absent, or no bound, none. */
const textOf = (number: number | undefined) => (number === undefined || Math.abs(number) === Infinity ? "" : String(number));

export function policyDraftOf(policy: RestorePolicy | undefined): PolicyDraft {
  return {
    completion: policy?.completion ? Completion[policy.completion]! : "",
    doneChannel: policy?.doneChannel ?? "",
    doneValue: textOf(policy?.doneValue),
    timeout: textOf(secondsOf(policy?.timeout)),
    settle: textOf(secondsOf(policy?.settle)),
    stage: textOf(policy?.stage),
    rampStep: textOf(policy?.rampStep),
    rampRate: textOf(policy?.rampRate),
    allowedLow: textOf(policy?.allowed?.low),
    allowedHigh: textOf(policy?.allowed?.high),
  };
}

/** The policy that was typed; `path`: of it in the request, which names both ends of the range `allowed`. Refuses with `FieldError`. */
export function policyOf(draft: PolicyDraft, path: string): RestorePolicy {
  const low = typedNumber(draft.allowedLow, `${path}.allowed.low`);
  const high = typedNumber(draft.allowedHigh, `${path}.allowed_high`);
  const given = {
    doneValue: typedNumber(draft.doneValue, `${path}.done_value`),
    timeout: typedDuration(draft.timeout, `${path}.timeout`),
    settle: typedDuration(draft.settle, `${path}.settle`),
    stage: typedNumber(draft.stage, `${path}.stage`, true),
    rampStep: typedNumber(draft.rampStep, `${path}.ramp_step`),
    rampRate: typedNumber(draft.rampRate, `${path}.ramp_rate`),
    allowed: low === undefined && high === undefined ? undefined : { low: low ?? -Infinity, high: high ?? Infinity },
  };
  return create(RestorePolicySchema, {
    completion: Completion[draft.completion as keyof typeof Completion] ?? Completion.UNSPECIFIED,
    doneChannel: draft.doneChannel.trim(),
    // what is absent and what is 0 are two things
    ...Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined)),
  });
}
