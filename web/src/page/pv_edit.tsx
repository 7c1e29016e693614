/** Edit what the catalog says of a PV. Nobody's change is lost: the save is refused where somebody was faster. */
import { useState } from "react";
import { FieldForm, Field, TextField } from "./fields";
import { changedFields, draftOf, mergeDraft, updateOf, type DraftField, type PvDraft } from "./pv_draft";
import { useSession } from "./session";
import { ErrorText } from "./tables";
import { useActing, useAsked } from "./use_call";
import { enumWords, timeText } from "./words";
import type { Pv } from "../../gen/drey/catalog/v1/catalog_pb";

const MISMATCH = "ETAG_MISMATCH";

/** `DraftField` as people read it. */
const titleOf = (field: DraftField) => enumWords(field.replace(/[A-Z]/g, (letter) => `_${letter}`));

/** The PV as it is in the catalog now, whatever this page has read before. */
export function PvEdit({ pvId, onClose }: { pvId: string; onClose: () => void }) {
  const { client } = useSession();
  const asked = useAsked(pvId, async (signal) => (await client.catalog.getPv({ key: { case: "id", value: pvId } }, { signal })).pv!);
  if (asked.answer === undefined) return asked.error === "" ? <p>Reading the catalog …</p> : <ErrorText text={asked.error} isAlert />;
  return <PvForm first={asked.answer} onClose={onClose} />;
}

function PvForm({ first, onClose }: { first: Pv; onClose: () => void }) {
  const { client, pvs } = useSession();
  const [pv, setPv] = useState(first);
  const [draft, setDraft] = useState(() => draftOf(first));
  const [conflicts, setConflicts] = useState<readonly DraftField[]>([]);
  const acting = useActing();
  const { busy, refusal, act } = acting;
  const base = draftOf(pv);
  const changed = changedFields(base, draft);
  const set = (field: DraftField) => (value: string) => setDraft((before) => ({ ...before, [field]: value }));
  const save = () =>
    act(async () => {
      const answer = await client.catalog.updatePv(updateOf(pv, draft));
      pvs.keepPv(answer.pv!);
      onClose();
    });
  const merge = () =>
    act(async () => {
      const now = (await client.catalog.getPv({ key: { case: "id", value: pv.id } })).pv!;
      const merged = mergeDraft(base, draft, draftOf(now));
      setPv(now);
      setDraft(merged.draft);
      setConflicts(merged.conflicts);
      pvs.keepPv(now);
    });
  const text = (field: DraftField, label: string, path: string, more: Partial<Parameters<typeof TextField>[0]> = {}) => (
    <TextField label={label} path={`pv.${path}`} value={draft[field]} onValue={set(field)} {...more} />
  );
  const isOvertaken = refusal?.reason === MISMATCH;
  return (
    <FieldForm label={`Edit ${pv.name}`} refusal={refusal} onSubmit={save}>
      {text("description", "Description", "description", { isWide: true, lines: 3, autoFocus: true })}
      {text("device", "Device", "device", { isWide: true, choices: pvs.devices })}
      {text("tags", "Tags", "tags", { isWide: true, lines: Math.max(2, draft.tags.split("\n").length + 1), placeholder: "Group: Tag, one a line" })}
      <Field label="Drey never writes it (read-only)" path="pv.read_only">
        {(aria) => <input type="checkbox" checked={draft.readOnly !== ""} onChange={(event) => set("readOnly")(event.target.checked ? "yes" : "")} {...aria} />}
      </Field>
      {pv.setpoint !== undefined && <Tolerance title="Setpoint: tolerance" role="setpoint" text={text} />}
      {pv.readback !== undefined && <Tolerance title="Readback: tolerance" role="readback" text={text} />}
      {pv.setpoint !== undefined && (
        <fieldset>
          <legend>A restore of it; empty: as its tags, its device and Drey say</legend>
          <div className="bar">
            {text("stage", "Stage", "restore_policy.stage", { size: 4 })}
            {text("rampStep", "Step at most", "restore_policy.ramp_step", { size: 6 })}
            {text("rampRate", "Per second at most", "restore_policy.ramp_rate", { size: 6 })}
            {text("allowedLow", "Never below", "restore_policy.allowed.low", { size: 6 })}
            {text("allowedHigh", "Never above", "restore_policy.allowed.high", { size: 6 })}
          </div>
        </fieldset>
      )}
      {conflicts.length > 0 && <Conflicts fields={conflicts} theirs={base} />}
      {isOvertaken && (
        <p className="warning">
          ▲ Somebody else has changed this PV since you opened it; nothing was saved.{" "}
          <button type="button" autoFocus disabled={busy} onClick={merge}>
            Take theirs, and keep what I typed
          </button>
        </p>
      )}
      <div className="bar">
        <button className="main" disabled={busy || changed.length === 0 || isOvertaken}>
          {busy ? "Saving …" : changed.length === 0 ? "Nothing is changed" : "Save"}
        </button>
        <button type="button" onClick={onClose}>
          Cancel
        </button>
        <span className="dim">last changed {timeText(pv.updateTime)}</span>
      </div>
    </FieldForm>
  );
}

interface ToleranceProps {
  readonly title: string;
  readonly role: "setpoint" | "readback";
  readonly text: (field: DraftField, label: string, path: string, more?: Partial<Parameters<typeof TextField>[0]>) => React.ReactNode;
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

/** Where both have changed the same: what the other wrote, which a save replaces. */
function Conflicts({ fields, theirs }: { fields: readonly DraftField[]; theirs: PvDraft }) {
  return (
    <div className="warning" role="status">
      ▲ You both changed the same. A save replaces what the other wrote:
      <ul>
        {fields.map((field) => (
          <li key={field}>
            {titleOf(field)}: <span className="mono">{theirs[field] || "empty"}</span>
          </li>
        ))}
      </ul>
    </div>
  );
}
