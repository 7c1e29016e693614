/** Take a snapshot: of what, from where, and who may be missing; a refusal names who was. */
import { useState } from "react";
import { ConnectError } from "@connectrpc/connect";
import { Field, FieldForm, FormButtons, TextField, typedDuration, typedNumber } from "./fields";
import { Grid, setCell, setMark, type Column, type Draw } from "./grid";
import { useSession } from "./session";
import { ErrorText } from "./tables";
import { FieldError, useActing, useAsked, type Refusal } from "./use_call";
import { counted, enumWords, plural } from "./words";
import { ChannelRole } from "../../gen/drey/common/v1/value_pb";
import { CoverageRefusalSchema, MissingReason, SnapshotSource, type CoverageRefusal, type MissingPv } from "../../gen/drey/snapshot/v1/snapshot_pb";

const ANY = "any";
const splitNames = (text: string) => text.split(/[\s,]+/).filter(Boolean);

export function TakeForm({ onClose, onTaken }: { onClose: () => void; onTaken: (id: string) => void }) {
  const { client, pvs } = useSession();
  const [title, setTitle] = useState("");
  const [comment, setComment] = useState("");
  const [globs, setGlobs] = useState("");
  const [device, setDevice] = useState("");
  const [tag, setTag] = useState("");
  const [source, setSource] = useState(SnapshotSource.IMAGE);
  const [missing, setMissing] = useState("");
  const [required, setRequired] = useState("");
  const [age, setAge] = useState("");
  const { busy, refusal, act } = useActing();
  const take = (mayMiss: string) =>
    act(async () => {
      const patterns = splitNames(globs);
      const [group, name] = tag.split(": ");
      const selector = {
        all: patterns.length === 0 && device === "" && tag === "",
        globs: patterns,
        devices: device === "" ? [] : [device],
        tags: tag === "" ? [] : [{ group: group!, tags: [name!] }],
      };
      const most = mayMiss === ANY ? 0 : (typedNumber(mayMiss, "spec.gates.max_missing", true) ?? 0);
      const maxAge = typedDuration(age, "spec.gates.max_age");
      if (maxAge !== undefined && !(Number(age) > 0)) throw new FieldError("spec.gates.max_age", "A time above 0 s, or nothing");
      const needed = splitNames(required);
      const answer = await client.snapshot.takeSnapshot({
        spec: {
          selector,
          source,
          titleTemplate: title.replaceAll("{", "{{").replaceAll("}", "}}"),
          comment,
          gates: {
            missing: mayMiss === ANY ? { case: "anyMissing", value: {} } : { case: "maxMissing", value: most },
            ...(needed.length > 0 ? { required: { globs: needed } } : {}),
            ...(maxAge === undefined ? {} : { maxAge }),
          },
        },
        wait: { seconds: 60n },
      });
      if (answer.snapshot === undefined) throw new Error(answer.job?.error?.message || "It is not taken yet: see the jobs.");
      onTaken(answer.snapshot.id);
    });
  const coverage = coverageOf(refusal);
  const takeWithout = (count: number) => {
    setMissing(String(count));
    take(String(count));
  };
  return (
    <FieldForm className="panel stack" label="Take a snapshot" refusal={refusal} onSubmit={() => take(missing)}>
      <div className="bar">
        <TextField label="Title" path="spec.title_template" isWide autoFocus value={title} onValue={setTitle} />
        <TextField label="Comment" path="spec.comment" isWide value={comment} onValue={setComment} />
      </div>
      <div className="bar">
        <TextField label="Names" path="spec.selector" placeholder="all, or QUAD:* BEND:*" value={globs} onValue={setGlobs} />
        <label>
          Device{" "}
          <select value={device} onChange={(event) => setDevice(event.target.value)}>
            <option value="">any</option>
            {pvs.devices.map((each) => (
              <option key={each}>{each}</option>
            ))}
          </select>
        </label>
        <label>
          Tag{" "}
          <select value={tag} onChange={(event) => setTag(event.target.value)}>
            <option value="">any</option>
            {pvs.tags.map((each) => (
              <option key={each}>{each}</option>
            ))}
          </select>
        </label>
        <Field label="Values" path="spec.source">
          {(aria) => (
            <select value={source} onChange={(event) => setSource(Number(event.target.value))} {...aria}>
              <option value={SnapshotSource.IMAGE}>as the monitors know them (fast)</option>
              <option value={SnapshotSource.READ}>read every channel</option>
            </select>
          )}
        </Field>
      </div>
      <div className="bar">
        <TextField label="PVs that may be missing" path="spec.gates.max_missing" size={5} placeholder="none" value={missing} onValue={(text) => setMissing(text.trim())} />
        <button type="button" onClick={() => setMissing(ANY)}>
          {ANY}
        </button>
        <TextField label="Never without" path="spec.gates.required" isWide placeholder="nobody in particular, or RF:* GUN:*" value={required} onValue={setRequired} />
        <TextField label="Monitors alive within seconds" path="spec.gates.max_age" size={5} placeholder="2" value={age} onValue={setAge} />
      </div>
      <FormButtons busy={busy} submit="Take it" submitting="Taking …" onCancel={onClose} />
      {coverage !== undefined && <MissingPvs coverage={coverage} busy={busy} onTake={takeWithout} />}
    </FieldForm>
  );
}

function coverageOf(refusal: Refusal | undefined): CoverageRefusal | undefined {
  return refusal?.cause instanceof ConnectError ? refusal.cause.findDetails(CoverageRefusalSchema)[0] : undefined;
}

const COLUMNS: readonly Column[] = [
  { title: "PV", width: "minmax(170px, 1fr)", className: "mono" },
  { title: "Setpoint", width: "160px" },
  { title: "Readback", width: "160px" },
  { title: "Wanted", width: "160px" },
];

interface MissingProps {
  readonly coverage: CoverageRefusal;
  readonly busy: boolean;
  readonly onTake: (count: number) => void;
}

/** All that was missing, by name, and the way to go on without. */
function MissingPvs({ coverage, busy, onTake }: MissingProps) {
  const { client } = useSession();
  const [chosen, setChosen] = useState(-1);
  const { refusalId, missingCount, firstMissing } = coverage;
  const asked = useAsked(refusalId, async (signal) => {
    if (refusalId === "") return firstMissing;
    const missing: MissingPv[] = [];
    for await (const part of client.snapshot.readRefusal({ id: refusalId }, { signal })) missing.push(...part.missing);
    return missing;
  });
  const rows = asked.answer ?? firstMissing;
  const draw: Draw = (index, cells) => {
    const { name, channels, required } = rows[index]!;
    setCell(cells[0]!, name, "", name);
    [ChannelRole.SETPOINT, ChannelRole.READBACK].forEach((role, place) => {
      const channel = channels.find((each) => each.role === role);
      setMark(cells[1 + place]!, channel === undefined ? "" : `⊘ ${enumWords(MissingReason[channel.reason])}`, channel === undefined ? "is-plain" : "is-off");
    });
    setMark(cells[3]!, required ? "✖ never without" : "", required ? "is-major" : "is-plain");
  };
  const needed = rows.filter(({ required }) => required).length;
  return (
    <section className="stack" aria-label="Missing PVs">
      <div className="bar">
        <strong>{plural(missingCount, "PV")} missing</strong>
        {needed > 0 ? (
          <span className="warning">▲ {counted(needed)} of them you never take it without</span>
        ) : (
          <button type="button" disabled={busy} onClick={() => onTake(missingCount)}>
            Take it without {plural(missingCount, "PV")}
          </button>
        )}
        {rows.length < missingCount && <span className="dim">the first {counted(rows.length)} are listed</span>}
      </div>
      <ErrorText text={asked.error} />
      <div className="plots">
        <Grid label="Missing PVs by number" columns={COLUMNS} count={rows.length} draw={draw} chosen={chosen} onChoose={setChosen} empty="Nobody is named." />
      </div>
    </section>
  );
}
