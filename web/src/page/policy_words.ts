/** A restore policy in words, part by part, and where a part came from. */
import { enumWords, secondsOf, spanText } from "./words";
import { Completion, type PolicySource, type RestorePolicy } from "../../gen/drey/catalog/v1/catalog_pb";

export interface PolicyPart {
  /** As `PolicySource.policy_field` names it. */
  readonly field: string;
  readonly title: string;
  readonly text: string;
}

function completionText({ completion, doneChannel, doneValue }: RestorePolicy): string | undefined {
  if (completion === Completion.UNSPECIFIED) return undefined;
  const words = enumWords(Completion[completion]);
  return completion === Completion.DONE_CHANNEL ? `${words}: ${doneChannel} is ${doneValue ?? 1}` : words;
}

const timeWords = (duration: RestorePolicy["timeout"]) => (duration === undefined ? undefined : spanText(secondsOf(duration)!));

const rangeText = ({ low, high }: { low: number; high: number }) =>
  low === -Infinity ? `… ${high}` : high === Infinity ? `${low} …` : `${low} … ${high}`;

/** All parts that it says something of. */
export function policyParts(policy: RestorePolicy | undefined): readonly PolicyPart[] {
  if (policy === undefined) return [];
  const { timeout, settle, stage, rampRate, rampStep, allowed } = policy;
  const parts: readonly (readonly [string, string, string | undefined])[] = [
    ["completion", "A write is done when", completionText(policy)],
    ["timeout", "Late after", timeWords(timeout)],
    ["settle", "Readback settled for", timeWords(settle)],
    ["stage", "Stage", stage?.toString()],
    ["ramp_rate", "Per second at most", rampRate?.toString()],
    ["ramp_step", "Step at most", rampStep?.toString()],
    ["allowed", "Never outside", allowed && rangeText(allowed)],
  ];
  return parts.flatMap(([field, title, text]) => (text === undefined ? [] : [{ field, title, text }]));
}

export function sourceWords({ source }: PolicySource): string {
  switch (source.case) {
    case "pv":
      return "the PV itself";
    case "device":
      return `its device ${source.value}`;
    case "tag":
      return `its tag ${source.value.group}: ${source.value.tag}`;
    case "builtIn":
      return "Drey";
    default:
      return "?";
  }
}
