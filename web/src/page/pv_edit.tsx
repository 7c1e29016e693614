/** Edit what the catalog says of a PV. */
import type { ComponentProps } from "react";
import { EditedEnd, useEdited } from "./edited";
import { FieldForm, Field, TextField } from "./fields";
import { PolicyFields } from "./policy_fields";
import { draftOf, updateOf, type DraftField } from "./pv_draft";
import { useSession } from "./session";
import { ErrorText } from "./tables";
import { useAsked } from "./use_call";
import type { Pv } from "../../gen/drey/catalog/v1/catalog_pb";

/** The PV as it is in the catalog now, whatever this page has read before. */
export function PvEdit({ pvId, onClose }: { pvId: string; onClose: () => void }) {
  const { client } = useSession();
  const asked = useAsked(pvId, async (signal) => (await client.catalog.getPv({ key: { case: "id", value: pvId } }, { signal })).pv!);
  if (asked.answer === undefined) return asked.error === "" ? <p>Reading the catalog …</p> : <ErrorText text={asked.error} isAlert />;
  return <PvForm first={asked.answer} onClose={onClose} />;
}

type TextProps = ComponentProps<typeof TextField>;

function PvForm({ first, onClose }: { first: Pv; onClose: () => void }) {
  const { client, pvs } = useSession();
  const edited = useEdited(first, draftOf, async ({ id }) => {
    const now = (await client.catalog.getPv({ key: { case: "id", value: id } })).pv!;
    pvs.keepPv(now);
    return now;
  });
  const { thing: pv, draft, set, refusal, act } = edited;
  const save = () =>
    act(async () => {
      const answer = await client.catalog.updatePv(updateOf(pv, draft));
      pvs.keepPv(answer.pv!);
      onClose();
    });
  const text = (field: DraftField, label: string, path: string, more: Partial<TextProps> = {}) => (
    <TextField label={label} path={`pv.${path}`} value={draft[field]} onValue={(value) => set(field, value)} {...more} />
  );
  return (
    <FieldForm label={`Edit ${pv.name}`} refusal={refusal} onSubmit={save}>
      {text("description", "Description", "description", { isWide: true, lines: 3, autoFocus: true })}
      {text("device", "Device", "device", { isWide: true, choices: pvs.devices })}
      {text("tags", "Tags", "tags", { isWide: true, lines: Math.max(2, draft.tags.split("\n").length + 1), placeholder: "Group: Tag, one a line" })}
      <Field label="Drey never writes it (read-only)" path="pv.read_only">
        {(aria) => <input type="checkbox" checked={draft.readOnly !== ""} onChange={(event) => set("readOnly", event.target.checked ? "yes" : "")} {...aria} />}
      </Field>
      {pv.setpoint !== undefined && <Tolerance title="Setpoint: tolerance" role="setpoint" text={text} />}
      {pv.readback !== undefined && <Tolerance title="Readback: tolerance" role="readback" text={text} />}
      {pv.setpoint !== undefined && (
        <PolicyFields draft={draft} onChange={set} path="pv.restore_policy" legend="A restore of it; empty: as its tags, its device and Drey say" />
      )}
      <EditedEnd edited={edited} what="PV" onClose={onClose} />
    </FieldForm>
  );
}

interface ToleranceProps {
  readonly title: string;
  readonly role: "setpoint" | "readback";
  readonly text: (field: DraftField, label: string, path: string, more?: Partial<TextProps>) => React.ReactNode;
}

function Tolerance({ title, role, text }: ToleranceProps) {
  return (
    <fieldset>
      <legend>{title}; empty: exact</legend>
      <div className="bar">
        {text(`${role}Absolute`, "Absolute", `${role}.tolerance.absolute`, { size: 8 })}
        {text(`${role}Relative`, "Relative (0.01 is 1 %)", `${role}.tolerance.relative`, { size: 8 })}
      </div>
    </fieldset>
  );
}
