/** Snapshots: list, take, look, golden, compare. */
import { useMemo, useState } from "react";
import { useSession } from "./session";
import { Comparison } from "./comparison";
import { go, stored } from "./places";
import { Fact } from "./pvs";
import { SnapshotKeeping } from "./snapshot_keeping";
import { SnapshotValues } from "./snapshot_values";
import { TakeForm } from "./take_form";
import { ErrorText, ListTable, type ListColumn } from "./tables";
import { useActing, useAsked, type Asked } from "./use_call";
import { counted, enumWords, plural, secondsOf, spanText, timeText } from "./words";
import { SnapshotSource, type Snapshot } from "../../gen/drey/snapshot/v1/snapshot_pb";

const MOST = 200;

/** Part of the address after the tab: the chosen snapshot, and what it is compared with. */
function usePlace(): [string, string] {
  const [, , id = "", other = ""] = location.hash.split("/");
  return [id, other];
}

/** One by its id, which need not be among the newest, nor pass the filters; empty: none. */
function useSnapshot(id: string): Asked<Snapshot | undefined> {
  const { client } = useSession();
  return useAsked(id, async (signal) => (id === "" ? undefined : (await client.snapshot.getSnapshot({ id }, { signal })).snapshot), id === "" ? undefined : 5000);
}

/** Somebody may have deleted what is looked at; its values are there until it is brought back or cleaned up. */
function DeletedNote({ snapshot }: { snapshot: Snapshot }) {
  if (snapshot.deleteTime === undefined) return null;
  return (
    <p className="warning" role="status">
      ▲ The snapshot of {timeText(snapshot.takeTime)}
      {snapshot.title && ` “${snapshot.title}”`} was deleted at {timeText(snapshot.deleteTime)}. It can be <a href={`#/snapshots/${snapshot.id}`}>brought back</a>.
    </p>
  );
}

export function SnapshotsTab() {
  const { client, may } = useSession();
  const [search, setSearch] = useState("");
  const [isGoldenOnly, setGoldenOnly] = useState(false);
  const [showsDeleted, setShowsDeleted] = useState(false);
  const [takes, setTakes] = useState(false);
  const [id, other] = usePlace();
  const list = useAsked(
    `${search} ${isGoldenOnly} ${showsDeleted}`,
    (signal) =>
      client.snapshot.listSnapshots({ search, goldenOnly: isGoldenOnly, includeDeleted: showsDeleted, pageSize: MOST }, { signal }),
    5000,
  );
  const snapshots = list.answer?.snapshots ?? [];
  const one = useSnapshot(id);
  const chosen = one.answer ?? snapshots.find((snapshot) => snapshot.id === id);
  const against = useSnapshot(other === "values" || other === "live" ? "" : other).answer;
  if (chosen !== undefined && other === "values")
    return (
      <>
        <DeletedNote snapshot={chosen} />
        <SnapshotValues key={id} snapshot={chosen} />
      </>
    );
  if (chosen !== undefined && other !== "")
    return (
      <>
        <DeletedNote snapshot={chosen} />
        {against !== undefined && <DeletedNote snapshot={against} />}
        <Comparison
          key={`${id} ${other}`}
          reference={chosen}
          other={against}
          otherState={other === "live" ? { state: { case: "live", value: {} as never } } : stored(other)}
        />
      </>
    );
  const lookAgain = () => (list.again(), one.again());
  return (
    <>
      <h1 className="sr">Snapshots</h1>
      <div className="bar">
        <input
          type="search"
          aria-label="Search title and comment"
          placeholder="Search title and comment   ( / )"
          value={search}
          onChange={(event) => setSearch(event.target.value)}
        />
        <label>
          <input type="checkbox" checked={isGoldenOnly} onChange={(event) => setGoldenOnly(event.target.checked)} /> golden only
        </label>
        <label>
          <input type="checkbox" checked={showsDeleted} onChange={(event) => setShowsDeleted(event.target.checked)} /> deleted too
        </label>
        <button
          className="main"
          disabled={!may("snapshot.snapshots.take")}
          title={may("snapshot.snapshots.take") ? "" : "Your key may not take snapshots"}
          onClick={() => setTakes(!takes)}
        >
          Take a snapshot
        </button>
      </div>
      {takes && <TakeForm onClose={() => setTakes(false)} onTaken={(taken) => (list.again(), setTakes(false), go("snapshots", taken))} />}
      <ErrorText text={one.error} isAlert />
      <div className="split">
        <ListTable
          label="Snapshots, newest first"
          asked={list}
          rows={snapshots}
          columns={COLUMNS}
          idOf={(snapshot) => snapshot.id}
          chosen={id}
          onChoose={(snapshot) => go("snapshots", snapshot.id)}
          empty={search || isGoldenOnly ? "No snapshot passes the filters." : "There are no snapshots yet. Take the first one."}
          note={list.answer?.nextPageToken && <p className="dim">The newest {MOST} are shown. Search for older ones.</p>}
        />
        {chosen !== undefined && <SnapshotDetails key={id} snapshot={chosen} others={snapshots} onChange={lookAgain} />}
      </div>
    </>
  );
}

const COLUMNS: readonly ListColumn<Snapshot>[] = [
  { title: "Taken", cell: (snapshot) => <a href={`#/snapshots/${snapshot.id}`}>{timeText(snapshot.takeTime)}</a> },
  { title: "Title", cell: (snapshot) => snapshot.title || <span className="dim">no title</span> },
  { title: "By", cell: (snapshot) => snapshot.actor?.principal },
  { title: "PVs", isNumber: true, cell: (snapshot) => counted(snapshot.pvCount) },
  { title: "Missing", cell: missingText },
  { title: "Marks", cell: (snapshot) => <Marks snapshot={snapshot} /> },
];

function missingCount(snapshot: Snapshot): number {
  const counts = snapshot.counts;
  return counts === undefined ? 0 : counts.disconnected + counts.neverConnected + counts.unsupported;
}

function missingText(snapshot: Snapshot) {
  const missing = missingCount(snapshot);
  return missing === 0 ? <span className="dim">none</span> : <span className="mark is-off">⊘ {plural(missing, "channel")}</span>;
}

function Marks({ snapshot }: { snapshot: Snapshot }) {
  return (
    <>
      {snapshot.deleteTime !== undefined && <span className="mark is-off">✖ deleted</span>}
      {snapshot.goldenMarks.map((mark) => (
        <span key={`${mark.scope} ${mark.label}`} className="mark is-minor">
          ★ golden{mark.label && ` ${mark.label}`}
        </span>
      ))}{" "}
      {snapshot.labels.join(", ")}
    </>
  );
}

function SnapshotDetails({ snapshot, others, onChange }: { snapshot: Snapshot; others: readonly Snapshot[]; onChange: () => void }) {
  const { client, may } = useSession();
  const { busy, error, act } = useActing();
  const [other, setOther] = useState("");
  const isGolden = useMemo(() => snapshot.goldenMarks.some((mark) => mark.scope === "" && mark.label === ""), [snapshot]);
  const skew = snapshot.skew;
  const toggleGolden = () =>
    act(async () => {
      const request = { snapshotId: snapshot.id, etag: snapshot.etag };
      if (isGolden) await client.snapshot.clearGolden(request);
      else await client.snapshot.setGolden(request);
      onChange();
    });
  return (
    <aside className="panel side stack" aria-label="The chosen snapshot">
      <div className="bar">
        <h2>{snapshot.title || "Snapshot without a title"}</h2>
        <span className="space" />
        <button aria-label="Close" onClick={() => go("snapshots")}>
          ×
        </button>
      </div>
      <DeletedNote snapshot={snapshot} />
      {snapshot.comment && <p>{snapshot.comment}</p>}
      <button className="main" disabled={!may("compare.states.compare")} onClick={() => go("snapshots", snapshot.id, "live")}>
        Compare with the machine now
      </button>
      <button onClick={() => go("drift", snapshot.id)} disabled={!may("monitor.drift.watch")}>
        Watch the drift from it
      </button>
      <button onClick={() => go("snapshots", snapshot.id, "values")}>Look at the values</button>
      <button disabled={!may("restore.plans.create")} onClick={() => go("restore", "new", snapshot.id)}>
        Plan a restore …
      </button>
      <div className="bar">
        <select aria-label="Another snapshot" value={other} onChange={(event) => setOther(event.target.value)}>
          <option value="">another snapshot …</option>
          {others
            .filter(({ id }) => id !== snapshot.id)
            .map((each) => (
              <option key={each.id} value={each.id}>
                {timeText(each.takeTime)} {each.title}
              </option>
            ))}
        </select>
        <button disabled={other === ""} onClick={() => go("snapshots", snapshot.id, other)}>
          Compare
        </button>
      </div>
      <button
        disabled={busy || !may(isGolden ? "snapshot.golden.clear" : "snapshot.golden.set")}
        title="A golden snapshot is known to be good, and is protected from deletion"
        onClick={toggleGolden}
      >
        {isGolden ? "☆ Take the golden mark away" : "★ Mark as golden"}
      </button>
      <ErrorText text={error} isAlert />
      <SnapshotKeeping snapshot={snapshot} onChange={onChange} />
      <dl className="facts">
        <Fact title="Taken" text={timeText(snapshot.takeTime)} />
        <Fact title="By" text={snapshot.actor?.principal ?? "—"} />
        <Fact title="From" text={enumWords(SnapshotSource[snapshot.source])} />
        <Fact title="PVs" text={counted(snapshot.pvCount)} />
        <Fact title="Channels" text={counted(snapshot.counts?.channels ?? 0)} />
        <Fact title="Connected" text={counted(snapshot.counts?.connected ?? 0)} />
        <Fact title="Disconnected" text={counted(snapshot.counts?.disconnected ?? 0)} />
        <Fact title="Never found" text={counted(snapshot.counts?.neverConnected ?? 0)} />
        <Fact title="In alarm" text={counted(snapshot.counts?.inAlarm ?? 0)} />
        <Fact title="Doubtful times" text={counted(snapshot.counts?.sourceTimeSuspect ?? 0)} />
        <Fact title="Median age of values" text={skew === undefined ? "—" : spanText(Number(skew.medianAgeNs) / 1e9)} />
        <Fact title="Taken within" text={spanText(secondsOf(snapshot.takeDuration) ?? 0)} />
      </dl>
      <p className="mono dim wraps">{snapshot.digest}</p>
    </aside>
  );
}
