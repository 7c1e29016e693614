/** What a person edits of a PV, as texts, and the update that makes it so. */
import { type MessageInitShape } from "@bufbuild/protobuf";
import { changedFields } from "./draft";
import { typedNumber } from "./fields";
import { isPolicyField, policyDraftOf, policyOf, type PolicyDraft } from "./policy_draft";
import { FieldError } from "./use_call";
import type { Pv, PvSchema, TagRef } from "../../gen/drey/catalog/v1/catalog_pb";

const PATHS = {
  description: "description",
  device: "device",
  tags: "tags",
  readOnly: "read_only",
  setpointAbsolute: "setpoint.tolerance",
  setpointRelative: "setpoint.tolerance",
  readbackAbsolute: "readback.tolerance",
  readbackRelative: "readback.tolerance",
} as const;

export type PvDraft = Readonly<Record<keyof typeof PATHS, string>> & PolicyDraft;
export type DraftField = keyof PvDraft;

const pathOf = (field: DraftField) => (isPolicyField(field) ? "restore_policy" : PATHS[field]);

const textOf = (number: number | undefined) => (number === undefined ? "" : String(number));

export const tagText = ({ group, tag }: TagRef) => `${group}: ${tag}`;

export function draftOf(pv: Pv): PvDraft {
  return {
    description: pv.description,
    device: pv.device,
    tags: pv.tags.map(tagText).join("\n"),
    readOnly: pv.readOnly ? "yes" : "",
    setpointAbsolute: textOf(pv.setpoint?.tolerance?.absolute),
    setpointRelative: textOf(pv.setpoint?.tolerance?.relative),
    readbackAbsolute: textOf(pv.readback?.tolerance?.absolute),
    readbackRelative: textOf(pv.readback?.tolerance?.relative),
    ...policyDraftOf(pv.restorePolicy),
  };
}

/** `Group: Tag`. */
export function tagOf(line: string, path: string): { group: string; tag: string } {
  const [group = "", ...rest] = line.split(":");
  const tag = rest.join(":").trim();
  if (tag === "") throw new FieldError(path, `${JSON.stringify(line)}: a tag is written as Group: Tag`);
  return { group: group.trim(), tag };
}

const tagsOf = (text: string) =>
  text
    .split("\n")
    .map((line) => line.trim())
    .filter(Boolean)
    .map((line) => tagOf(line, "pv.tags"));

export interface PvUpdate {
  readonly pv: MessageInitShape<typeof PvSchema>;
  readonly updateMask: { paths: string[] };
}

/** The update that makes the PV what was typed, and touches nothing else; refuses with `FieldError`. */
export function updateOf(pv: Pv, draft: PvDraft): PvUpdate {
  const paths = [...new Set(changedFields(draftOf(pv), draft).map(pathOf))];
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
      restorePolicy: policyOf(draft, "pv.restore_policy"),
    },
    updateMask: { paths },
  };
}
