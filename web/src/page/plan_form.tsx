/** Make a plan of a snapshot: of which PVs, with which edits, under which guards and gates, and when it goes back. */
import { useState, type ReactNode } from "react";
import { EXTRACT, SETPOINT } from "@drey/client";
import { Field, FieldForm, FormButtons, TextField } from "./fields";
import { EMPTY_DRAFT, specOf, type EditDraft, type GateDraft, type GuardDraft, type KnownSetpoint, type PlanDraft } from "./plan_draft";
import type { PvStore } from "./pv_store";
import { useSession } from "./session";
import { go, stored } from "./places";
import { ErrorText } from "./tables";
import { useActing, useAsked } from "./use_call";
import { plural, timeText } from "./words";

function knownSetpoint({ watch: { state } }: PvStore, name: string): KnownSetpoint | undefined {
  const slot = state.names.indexOf(name);
  if (slot < 0 || !state.hasChannel(slot, SETPOINT)) return undefined;
  return { kind: state.types[2 * slot]! % EXTRACT, labels: state.metadataOf(slot, SETPOINT)?.enumLabels };
}

/** `names`: of these PVs only; none: whatever is filled in. */
export function NewPlan({ snapshotId, names }: { snapshotId: string; names: readonly string[] }) {
  const { client, pvs } = useSession();
  const snapshot = useAsked(snapshotId, (signal) => client.snapshot.getSnapshot({ id: snapshotId }, { signal }));
  const [draft, setDraft] = useState(EMPTY_DRAFT);
  const { busy, refusal, act } = useActing();
  const set = (change: Partial<PlanDraft>) => setDraft((before) => ({ ...before, ...change }));
  const make = () =>
    act(async () => {
      const source = { case: "state", value: stored(snapshotId) as never } as const;
      const answer = await client.restore.createPlan({ spec: { ...specOf(draft, names, (name) => knownSetpoint(pvs, name)), source } });
      go("restore", answer.plan!.id);
    });
  return (
    <FieldForm className="panel stack" label="Plan a restore" refusal={refusal} onSubmit={make}>
      <h1>
        Plan a restore of {snapshot.answer?.snapshot?.title || "the snapshot"} <span className="dim">taken {timeText(snapshot.answer?.snapshot?.takeTime)}</span>
      </h1>
      <ErrorText text={snapshot.error} />
      <p className="dim">Nothing is written yet: every setpoint is read, and you look at the list first.</p>
      <div className="bar">
        {names.length > 0 ? (
          <span className="wide">
            Only {plural(names.length, "PV")}: <span className="mono">{names.slice(0, 5).join(", ")}{names.length > 5 && " …"}</span>
          </span>
        ) : (
          <TextField label="Only names" path="spec.selector" isWide placeholder="all of the snapshot, or QUAD:* BEND:*" value={draft.globs} onValue={(globs) => set({ globs })} />
        )}
        <TextField label="Leave out" path="spec.selector.excluding" isWide placeholder="nothing, or MOTOR:*" value={draft.leftOut} onValue={(leftOut) => set({ leftOut })} />
        <label>
          Device{" "}
          <select value={draft.device} onChange={(event) => set({ device: event.target.value })}>
            <option value="">any</option>
            {pvs.devices.map((each) => (
              <option key={each}>{each}</option>
            ))}
          </select>
        </label>
      </div>
      <TextField label="Comment" path="spec.comment" isWide value={draft.comment} onValue={(comment) => set({ comment })} />
      <label>
        <input type="checkbox" checked={draft.isExact} onChange={(event) => set({ isExact: event.target.checked })} /> also write what is within tolerance
      </label>
      <Rows
        title="Other values than those of the snapshot"
        add="Edit a value"
        rows={draft.edits}
        fresh={{ names: names.length === 1 ? names[0]! : "", how: "value", text: "" } as EditDraft}
        onRows={(edits) => set({ edits })}
      >
        {(edit, index, change) => <EditRow edit={edit} path={`spec.edits[${index}]`} onChange={change} />}
      </Rows>
      <Rows
        title="Guards: what must hold before and while it writes; one that fails, or is not known any more, stops it"
        add="Add a guard"
        rows={draft.guards}
        fresh={{ expression: "", description: "" } as GuardDraft}
        onRows={(guards) => set({ guards })}
      >
        {(guard, index, change) => (
          <>
            <TextField label="Condition" path={`spec.guards[${index}].expression`} isWide autoFocus placeholder={'pv["SR:CURRENT"] < 0.1'} value={guard.expression} onValue={(expression) => change({ expression })} />
            <TextField label="What for" path={`spec.guards[${index}].description`} value={guard.description} onValue={(description) => change({ description })} />
          </>
        )}
      </Rows>
      <Rows
        title="Gates: what must hold after a stage before the next one begins"
        add="Add a gate"
        rows={draft.gates}
        fresh={{ stage: "0", how: "failed", text: "0" } as GateDraft}
        onRows={(gates) => set({ gates })}
      >
        {(gate, index, change) => <GateRow gate={gate} path={`spec.gates[${index}]`} onChange={change} />}
      </Rows>
      <fieldset>
        <legend>It goes back on its own to what was there before</legend>
        <div className="bar">
          <TextField label="after more failures than" path="spec.rollback.max_failed" size={5} placeholder="never" value={draft.backAfter} onValue={(backAfter) => set({ backAfter })} />
          <Field label="when a guard fails after the first write" path="spec.rollback.on_guard">
            {(aria) => <input type="checkbox" checked={draft.backOnGuard} onChange={(event) => set({ backOnGuard: event.target.checked })} {...aria} />}
          </Field>
        </div>
      </fieldset>
      <TextField label="May be executed for so many minutes" path="spec.lifetime" size={5} placeholder="15" value={draft.minutes} onValue={(minutes) => set({ minutes })} />
      <FormButtons busy={busy} submit="Make the plan" submitting="Reading the machine …" onCancel={() => history.back()} />
    </FieldForm>
  );
}

interface RowsProps<Row> {
  readonly title: string;
  readonly add: string;
  readonly rows: readonly Row[];
  readonly fresh: Row;
  readonly onRows: (rows: readonly Row[]) => void;
  readonly children: (row: Row, index: number, change: (change: Partial<Row>) => void) => ReactNode;
}

/** A list of like things, to which one is added and from which one is removed. */
function Rows<Row>({ title, add, rows, fresh, onRows, children }: RowsProps<Row>) {
  const change = (index: number) => (part: Partial<Row>) => onRows(rows.map((row, place) => (place === index ? { ...row, ...part } : row)));
  return (
    <fieldset>
      <legend>{title}</legend>
      {rows.map((row, index) => (
        <div className="bar" role="group" aria-label={`${add} ${index + 1}`} key={index}>
          {children(row, index, change(index))}
          <button type="button" aria-label={`Remove ${index + 1}`} onClick={() => onRows(rows.filter((_, place) => place !== index))}>
            ×
          </button>
        </div>
      ))}
      <button type="button" onClick={() => onRows([...rows, fresh])}>
        + {add}
      </button>
    </fieldset>
  );
}

const EDITS: Record<EditDraft["how"], string> = { value: "this value", scale: "the stored value times", offset: "the stored value plus" };

function EditRow({ edit, path, onChange }: { edit: EditDraft; path: string; onChange: (change: Partial<EditDraft>) => void }) {
  return (
    <>
      <TextField label="PVs" path={`${path}.selector`} isWide autoFocus placeholder="QUAD:LI21:201:BDES, or BEND:*" value={edit.names} onValue={(names) => onChange({ names })} />
      <label>
        get{" "}
        <select value={edit.how} onChange={(event) => onChange({ how: event.target.value as EditDraft["how"] })}>
          {Object.entries(EDITS).map(([how, words]) => (
            <option key={how} value={how}>
              {words}
            </option>
          ))}
        </select>
      </label>
      <TextField label={edit.how === "value" ? "Value" : "Number"} path={edit.how === "value" ? `${path}.value` : `${path}.linear.${edit.how}`} size={10} value={edit.text} onValue={(text) => onChange({ text })} />
    </>
  );
}

function GateRow({ gate, path, onChange }: { gate: GateDraft; path: string; onChange: (change: Partial<GateDraft>) => void }) {
  const holds = gate.how === "holds";
  return (
    <>
      <TextField label="After stage" path={`${path}.after_stage`} size={4} autoFocus value={gate.stage} onValue={(stage) => onChange({ stage })} />
      <label>
        goes on{" "}
        <select value={gate.how} onChange={(event) => onChange({ how: event.target.value as GateDraft["how"], text: event.target.value === "failed" ? "0" : "" })}>
          <option value="failed">when not verified are at most</option>
          <option value="holds">when this holds</option>
        </select>
      </label>
      <TextField
        label={holds ? "Condition" : "Writes"}
        path={holds ? `${path}.must_hold.expression` : `${path}.max_failed`}
        isWide={holds}
        {...(holds ? { placeholder: 'pv["MODE"] == "MD"' } : { size: 5 })}
        value={gate.text}
        onValue={(text) => onChange({ text })}
      />
    </>
  );
}
