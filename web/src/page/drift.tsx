/** Drift: how the machine differs from a snapshot, live, with counts by device or tag. */
import { useEffect, useMemo, useRef, useState } from "react";
import type { DriftState, DriftWatch } from "@drey/client";
import { deviationText } from "./comparison";
import { setCell, setMark, type Column, type Draw } from "./grid";
import { displayOf } from "./pvs";
import { useSession } from "./session";
import { go, stored, type StateInit } from "./places";
import { ErrorText, searched, SearchedGrid } from "./tables";
import { useAsked } from "./use_call";
import { counted, enumWords, errorText, plural, timeText, valueText } from "./words";
import { DifferenceClass } from "../../gen/drey/compare/v1/compare_pb";
import type { DriftRow } from "../../gen/drey/monitor/v1/monitor_service_pb";
import { Freshness } from "../../gen/drey/common/v1/value_pb";
import type { Snapshot } from "../../gen/drey/snapshot/v1/snapshot_pb";
import type { PvStore } from "./pv_store";

const COLUMNS: readonly Column[] = [
  { title: "What", width: "210px" },
  { title: "PV", width: "minmax(170px, 2fr)", className: "mono" },
  { title: "Setpoint then", width: "minmax(95px, 1fr)", className: "value right" },
  { title: "Setpoint now", width: "minmax(95px, 1fr)", className: "value right" },
  { title: "Readback then", width: "minmax(95px, 1fr)", className: "value right" },
  { title: "Readback now", width: "minmax(95px, 1fr)", className: "value right" },
  { title: "Tolerances", width: "90px", className: "value right" },
  { title: "Device", width: "minmax(80px, 1fr)" },
];

/** PVs that a plan is made for by their names, which stand in its address. */
const MOST_PLANNED = 100;

export function DriftTab() {
  const { client } = useSession();
  const [, , id = ""] = location.hash.split("/");
  const list = useAsked(
    "drift",
    async (signal) => {
      // a golden one need not be among the newest
      const lists = await Promise.all([false, true].map((goldenOnly) => client.snapshot.listSnapshots({ goldenOnly, pageSize: 200 }, { signal })));
      const byId = new Map(lists.flatMap(({ snapshots }) => snapshots).map((snapshot) => [snapshot.id, snapshot]));
      return { snapshots: [...byId.values()] };
    },
    10_000,
  );
  const [hysteresis, setHysteresis] = useState(0.8);
  const snapshots = list.answer?.snapshots ?? [];
  const labels = [...new Set(snapshots.flatMap(({ goldenMarks }) => goldenMarks.filter(({ scope }) => scope === "").map(({ label }) => label)))];
  const reference = referenceOf(id);
  return (
    <>
      <h1 className="sr">Drift</h1>
      <div className="bar">
        <label>
          Against{" "}
          <select value={id} onChange={(event) => go("drift", event.target.value)}>
            <option value="">a snapshot …</option>
            {labels.map((label) => (
              <option key={label} value={`golden:${encodeURIComponent(label)}`}>
                ★ golden {label}, whichever it is
              </option>
            ))}
            {snapshots.map((snapshot) => (
              <option key={snapshot.id} value={snapshot.id}>
                {optionText(snapshot)}
              </option>
            ))}
            {id !== "" && !id.startsWith("golden:") && !snapshots.some((snapshot) => snapshot.id === id) && <option value={id}>{id}</option>}
          </select>
        </label>
        <label title="What differed goes on to until it is well within its tolerance">
          Lets go below{" "}
          <select value={hysteresis} onChange={(event) => setHysteresis(Number(event.target.value))}>
            {[1, 0.9, 0.8, 0.5].map((each) => (
              <option key={each} value={each}>
                {each === 1 ? "its tolerance" : `${each * 100} % of its tolerance`}
              </option>
            ))}
          </select>
        </label>
      </div>
      <ErrorText text={list.error} />
      {reference === undefined ? (
        <p className="empty">
          {list.answer !== undefined && snapshots.length === 0 ? (
            <>
              There is nothing to compare the machine with yet: take a snapshot under <a href="#/snapshots">Snapshots</a>, and mark a good one as golden.
            </>
          ) : (
            "Choose what the machine is compared with: a golden snapshot, or any other."
          )}
        </p>
      ) : (
        <DriftView key={`${id} ${hysteresis}`} reference={reference} hysteresis={hysteresis} />
      )}
    </>
  );
}

const optionText = (snapshot: Snapshot) => `${timeText(snapshot.takeTime)} ${snapshot.title}`;

function referenceOf(id: string): StateInit | undefined {
  if (id === "") return undefined;
  if (!id.startsWith("golden:")) return stored(id);
  const label = decodeURIComponent(id.slice("golden:".length));
  return { state: { case: "golden", value: { scope: "", label } as never } };
}

/** The watch, which lives as long as the view; what no waiting will mend. */
function useDrift(reference: StateInit, hysteresis: number): { watch: DriftWatch | undefined; failure: unknown } {
  const { client } = useSession();
  const [found, setFound] = useState<{ watch: DriftWatch | undefined; failure: unknown }>({ watch: undefined, failure: undefined });
  useEffect(() => {
    const stop = new AbortController();
    const watch = client.watchDrift({ reference, hysteresis }, { signal: stop.signal });
    setFound({ watch, failure: undefined });
    const follow = async () => {
      try {
        for await (const _ of watch);
      } catch (failure) {
        setFound({ watch, failure });
      }
    };
    void follow();
    return () => stop.abort();
    // eslint-disable-next-line react-hooks/exhaustive-deps
  }, [client]);
  return found;
}

/** Groups that are counted on screen, the fullest first. */
const MOST_COUNTED = 12;

type GroupBy = "device" | string;

/** What a PV belongs to: its device, or its tags of a group. */
function groupsOf(pvs: PvStore, row: DriftRow, by: GroupBy): readonly string[] {
  const pv = pvs.catalog.get(Number(row.live!.number));
  if (by === "device") return [pv?.device || "no device"];
  const tags = pv?.tags.filter(({ group }) => group === by).map(({ tag }) => tag) ?? [];
  return tags.length > 0 ? tags : [`no ${by}`];
}

const deviationOf = (row: DriftRow) => row.deviation ?? -1;

function sortedRows(state: DriftState): DriftRow[] {
  return [...state.rows.values()].sort(
    (a, b) => Number(b.different) - Number(a.different) || deviationOf(b) - deviationOf(a) || (a.live!.name < b.live!.name ? -1 : 1),
  );
}

function DriftView({ reference, hysteresis }: { reference: StateInit; hysteresis: number }) {
  const { pvs, may } = useSession();
  const { watch, failure } = useDrift(reference, hysteresis);
  const [search, setSearch] = useState("");
  const [by, setBy] = useState<GroupBy>("device");
  const [group, setGroup] = useState("");
  const [isDifferentOnly, setDifferentOnly] = useState(false);
  const [rows, setRows] = useState<readonly DriftRow[]>([]);
  const [chosenNumber, setChosenNumber] = useState("");
  const [, setTold] = useState("");
  const version = useRef(-1);
  useEffect(() => {
    const look = () => {
      if (watch === undefined) return;
      setTold(`${watch.connection} ${watch.trouble}`);
      if (watch.state.version === version.current) return;
      version.current = watch.state.version;
      setRows(sortedRows(watch.state));
    };
    const timer = setInterval(look, 250);
    return () => clearInterval(timer);
  }, [watch]);
  const groups = useMemo(() => [...new Set(pvs.tags.map((tag) => tag.split(": ")[0]!))], [pvs.tags]);
  const counts = useMemo(() => {
    const byName = new Map<string, { different: number; unknown: number }>();
    for (const row of rows)
      for (const name of groupsOf(pvs, row, by)) {
        const count = byName.get(name) ?? { different: 0, unknown: 0 };
        count[row.different ? "different" : "unknown"] += 1;
        byName.set(name, count);
      }
    const sorted = [...byName].sort(([, a], [, b]) => b.different - a.different || b.unknown - a.unknown);
    // a chosen group stays in sight when its last PV is the same again: it still filters the rows
    const chosen = sorted.findIndex(([name]) => name === group);
    if (group === "" || (chosen >= 0 && chosen < MOST_COUNTED)) return sorted;
    const [entry] = chosen < 0 ? [[group, { different: 0, unknown: 0 }] as const] : sorted.splice(chosen, 1);
    return [entry!, ...sorted];
  }, [rows, by, group, pvs]);
  const shown = useMemo(() => {
    const passes = searched(search);
    return rows.filter(
      (row) =>
        (row.different || !isDifferentOnly) &&
        (group === "" || groupsOf(pvs, row, by).includes(group)) &&
        passes(`${row.live!.name} ${groupsOf(pvs, row, "device").join(" ")}`),
    );
  }, [rows, search, isDifferentOnly, group, by, pvs]);
  const isLive = watch?.connection === "live";
  const draw = useMemo<Draw>(
    () => (index, cells, element) => {
      const row = shown[index]!;
      const { state } = pvs.watch;
      const slot = state.slotOf(row.live!.number);
      const display = (role: 0 | 1) => (slot === undefined ? {} : displayOf(state.metadataOf(slot, role)));
      const isStale = [row.live!.setpoint, row.live!.readback].some((value) => value?.freshness === Freshness.STALE);
      element.classList.toggle("not-live", !isLive || isStale);
      setMark(cells[0]!, `${row.different ? "≠ different" : `? ${classWords(row)}`}${isStale ? ", stale" : ""}`, row.different ? "is-major" : "is-off");
      setCell(cells[1]!, row.live!.name, "", row.live!.name);
      const texts = row.tooLarge
        ? ["too large", "too large", "", ""]
        : [
            valueText(row.stored!.setpoint, display(0)),
            valueText(row.live!.setpoint, display(0)),
            valueText(row.stored!.readback, display(1)),
            valueText(row.live!.readback, display(1)),
          ];
      texts.forEach((text, place) => setCell(cells[2 + place]!, text));
      setCell(cells[6]!, deviationText(row.deviation));
      setCell(cells[7]!, groupsOf(pvs, row, "device").join(" "));
    },
    [shown, pvs, isLive],
  );
  const chosen = shown.findIndex((row) => row.live!.number === chosenNumber);
  const row = shown[chosen];
  const snapshotId = watch?.state.begin?.snapshotId ?? "";
  const plan = (names: readonly string[]) => go("restore", "new", snapshotId, names.map(encodeURIComponent).join(","));
  const summary = watch?.state.summary;
  if (failure !== undefined) return <ErrorText text={errorText(failure)} isAlert />;
  return (
    <>
      {watch !== undefined && watch.connection === "lost" && (
        <p className="warning">Not live: {watch.trouble}. It goes on by itself.</p>
      )}
      {summary !== undefined && (
        <p role="status" className={summary.different + summary.unknown === 0 ? "good" : "warning"}>
          <strong>{summary.different === 0 ? "No PV differs" : `${plural(summary.different, "PV")} ${summary.different === 1 ? "differs" : "differ"}`}</strong>{" "}
          from the snapshot of {timeText(watch?.state.begin?.stateTime)}, {counted(summary.same)} are the same within tolerance
          {summary.unknown > 0 && <>, of {counted(summary.unknown)} it is not known</>}.
          {summary.stale > 0 && <> Values of {plural(summary.stale, "PV")} are stale.</>}
        </p>
      )}
      <div className="bar" role="group" aria-label="Counts by group">
        <label>
          Count by{" "}
          <select value={by} onChange={(event) => (setBy(event.target.value), setGroup(""))}>
            <option value="device">device</option>
            {groups.map((name) => (
              <option key={name}>{name}</option>
            ))}
          </select>
        </label>
        {counts.slice(0, MOST_COUNTED).map(([name, count]) => (
          <button key={name} aria-pressed={group === name} onClick={() => setGroup(group === name ? "" : name)}>
            {name}: {(count.different > 0 || count.unknown === 0) && `≠ ${counted(count.different)}`} {count.unknown > 0 && `? ${counted(count.unknown)}`}
          </button>
        ))}
        {counts.length > MOST_COUNTED && <span className="dim">and {counts.length - MOST_COUNTED} more</span>}
      </div>
      <div className="split">
        <div className="grow">
          <SearchedGrid
            label="PVs that are not the same"
            columns={COLUMNS}
            count={shown.length}
            draw={draw}
            chosen={chosen}
            onChoose={(index) => setChosenNumber(shown[index]?.live!.number ?? "")}
            onKey={(key, index) => {
              if (key !== "p" || shown[index] === undefined) return false;
              go("pvs", shown[index].live!.number);
              return true;
            }}
            search={search}
            onSearch={setSearch}
            searchLabel="Search in the drift"
            placeholder="Search name and device"
            busy={watch?.state.complete ? "" : "Comparing …"}
            empty={rows.length > 0 ? "Nothing passes the filters." : "Nothing has drifted."}
          >
            <label>
              <input type="checkbox" checked={isDifferentOnly} onChange={(event) => setDifferentOnly(event.target.checked)} /> different only
            </label>
            <button
              disabled={!may("restore.plans.create") || shown.length === 0 || shown.length > MOST_PLANNED}
              title={shown.length > MOST_PLANNED ? `At most ${MOST_PLANNED} PVs: filter, or plan from the snapshot` : ""}
              onClick={() => plan(shown.map((each) => each.live!.name))}
            >
              Plan a restore of {plural(shown.length, "PV")} …
            </button>
          </SearchedGrid>
        </div>
        {row !== undefined && (
          <aside className="panel side stack" aria-label={`Drift of ${row.live!.name}`}>
            <div className="bar">
              <h2 className="mono">{row.live!.name}</h2>
              <span className="space" />
              <button aria-label="Close details" onClick={() => setChosenNumber("")}>
                ×
              </button>
            </div>
            <button onClick={() => go("pvs", row.live!.number)}>Plot it (p)</button>
            <button disabled={!may("restore.plans.create")} onClick={() => plan([row.live!.name])}>
              Plan a restore of it …
            </button>
            <dl className="facts">
              <dt>Setpoint</dt>
              <dd>{enumWords(DifferenceClass[row.setpointClass])}</dd>
              <dt>Readback</dt>
              <dd>{enumWords(DifferenceClass[row.readbackClass])}</dd>
              <dt>Tolerances</dt>
              <dd>{deviationText(row.deviation)}</dd>
            </dl>
          </aside>
        )}
      </div>
    </>
  );
}

const SAME: ReadonlySet<DifferenceClass> = new Set([DifferenceClass.UNSPECIFIED, DifferenceClass.EQUAL, DifferenceClass.WITHIN_TOLERANCE]);

/** Why it is not known whether it differs. */
function classWords(row: DriftRow): string {
  const first = SAME.has(row.setpointClass) ? row.readbackClass : row.setpointClass;
  return enumWords(DifferenceClass[first]);
}
