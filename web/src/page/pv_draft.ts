/** What a person edits of a PV, as texts; what of it changed; and what came meanwhile from somebody else. */
import { clone, create, type MessageInitShape } from "@bufbuild/protobuf";
import { RestorePolicySchema, type Pv, type PvSchema, type RestorePolicy, type TagRef } from "../../gen/drey/catalog/v1/catalog_pb";
import { RangeSchema } from "../../gen/drey/common/v1/value_pb";
import { typedNumber } from "./fields";
import { FieldError } from "./use_call";

const PATHS = {
  description: "description",
  device: "device",
  tags: "tags",
  readOnly: "read_only",
  setpointAbsolute: "setpoint.tolerance",
  setpointRelative: "setpoint.tolerance",
  readbackAbsolute: "readback.tolerance",
  readbackRelative: "readback.tolerance",
  stage: "restore_policy",
  rampStep: "restore_policy",
  rampRate: "restore_policy",
  allowedLow: "restore_policy",
  allowedHigh: "restore_policy",
} as const;

export type DraftField = keyof typeof PATHS;
export type PvDraft = Readonly<Record<DraftField, string>>;

const textOf = (number: number | undefined) => (number === undefined ? "" : String(number));

const tagLine = ({ group, tag }: TagRef) => `${group}: ${tag}`;

export function draftOf(pv: Pv): PvDraft {
  const { restorePolicy: policy } = pv;
  return {
    description: pv.description,
    device: pv.device,
    tags: pv.tags.map(tagLine).join("\n"),
    readOnly: pv.readOnly ? "yes" : "",
    setpointAbsolute: textOf(pv.setpoint?.tolerance?.absolute),
    setpointRelative: textOf(pv.setpoint?.tolerance?.relative),
    readbackAbsolute: textOf(pv.readback?.tolerance?.absolute),
    readbackRelative: textOf(pv.readback?.tolerance?.relative),
    stage: textOf(policy?.stage),
    rampStep: textOf(policy?.rampStep),
    rampRate: textOf(policy?.rampRate),
    allowedLow: textOf(policy?.allowed?.low),
    allowedHigh: textOf(policy?.allowed?.high),
  };
}

const FIELDS = Object.keys(PATHS) as DraftField[];

export const changedFields = (base: PvDraft, draft: PvDraft) => FIELDS.filter((field) => base[field] !== draft[field]);

/** What was typed, over what is there by now; and the fields that both have changed, each otherwise. */
export function mergeDraft(base: PvDraft, typed: PvDraft, now: PvDraft): { draft: PvDraft; conflicts: readonly DraftField[] } {
  const mine = changedFields(base, typed);
  const draft = { ...now, ...Object.fromEntries(mine.map((field) => [field, typed[field]])) };
  return { draft, conflicts: mine.filter((field) => now[field] !== base[field] && now[field] !== typed[field]) };
}

function tagsOf(text: string): { group: string; tag: string }[] {
  const lines = text.split("\n").map((line) => line.trim()).filter(Boolean);
  return lines.map((line) => {
    const [group = "", ...rest] = line.split(":");
    const tag = rest.join(":").trim();
    if (tag === "") throw new FieldError("pv.tags", `${JSON.stringify(line)}: a tag is written as Group: Tag, one a line`);
    return { group: group.trim(), tag };
  });
}

function policyOf(pv: Pv, draft: PvDraft): RestorePolicy {
  const path = "pv.restore_policy";
  const policy = pv.restorePolicy === undefined ? create(RestorePolicySchema) : clone(RestorePolicySchema, pv.restorePolicy);
  const put = <Key extends "stage" | "rampStep" | "rampRate" | "allowed">(key: Key, value: RestorePolicy[Key] | undefined) => {
    if (value === undefined) delete policy[key];
    else policy[key] = value;
  };
  put("stage", typedNumber(draft.stage, `${path}.stage`, true));
  put("rampStep", typedNumber(draft.rampStep, `${path}.ramp_step`));
  put("rampRate", typedNumber(draft.rampRate, `${path}.ramp_rate`));
  const low = typedNumber(draft.allowedLow, `${path}.allowed.low`);
  const high = typedNumber(draft.allowedHigh, `${path}.allowed.high`);
  if ((low === undefined) !== (high === undefined))
    throw new FieldError(`${path}.allowed.${low === undefined ? "low" : "high"}`, "A range has two ends: give both, or neither");
  put("allowed", low === undefined || high === undefined ? undefined : create(RangeSchema, { low, high }));
  return policy;
}

export interface PvUpdate {
  readonly pv: MessageInitShape<typeof PvSchema>;
  readonly updateMask: { paths: string[] };
}

/** The update that makes the PV what was typed, and touches nothing else; refuses with `FieldError`. */
export function updateOf(pv: Pv, draft: PvDraft): PvUpdate {
  const paths = [...new Set(changedFields(draftOf(pv), draft).map((field) => PATHS[field]))];
  const tolerance = (role: "setpoint" | "readback") => {
    const path = `pv.${role}.tolerance`;
    const absolute = typedNumber(draft[`${role}Absolute`], `${path}.absolute`);
    const relative = typedNumber(draft[`${role}Relative`], `${path}.relative`);
    return absolute === undefined && relative === undefined ? {} : { tolerance: { absolute: absolute ?? 0, relative: relative ?? 0 } };
  };
  return {
    pv: {
      id: pv.id,
      etag: pv.etag,
      description: draft.description,
      device: draft.device.trim(),
      tags: tagsOf(draft.tags),
      readOnly: draft.readOnly !== "",
      ...(pv.setpoint === undefined ? {} : { setpoint: tolerance("setpoint") }),
      ...(pv.readback === undefined ? {} : { readback: tolerance("readback") }),
      restorePolicy: policyOf(pv, draft),
    },
    updateMask: { paths },
  };
}
