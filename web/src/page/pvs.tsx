/** PVs: every one, live. */
import { lazy, Suspense, useEffect, useMemo, useRef, useState } from "react";
import { ARRAY, extractOf, Kind, numberOf, pointsOf, READBACK, SETPOINT, type Display, type Extract, type Role, type WatchState } from "@drey/client";
import type { ChannelMetadata } from "../../gen/drey/common/v1/value_pb";
import { Grid, setCell, setMark, type Column, type Draw } from "./grid";
import { Legend, Plot } from "./lazy_plot";
import { PvEdit } from "./pv_edit";
import { PvHistory } from "./pv_history";
import { EffectivePolicy } from "./pv_policy";
import type { PvStore } from "./pv_store";
import { useSession } from "./session";
import { alarmWords, channelMark, counted, enumWords, graver, nanosecondsText, shownText, type Mark } from "./words";
import { ArrayDecimation, ConnectionState, ValueType } from "../../gen/drey/common/v1/value_pb";

const PvImport = lazy(async () => ({ default: (await import("./pv_import")).PvImport }));

const COLUMNS: readonly Column[] = [
  { title: "State", width: "138px" },
  { title: "PV", width: "minmax(170px, 2fr)", className: "mono" },
  { title: "Setpoint", width: "minmax(110px, 1.2fr)", className: "value right" },
  { title: "Readback", width: "minmax(110px, 1.2fr)", className: "value right" },
  { title: "Unit", width: "60px" },
  { title: "Device", width: "minmax(80px, 1fr)" },
  { title: "Description", width: "minmax(100px, 2fr)" },
];

const STATES: Record<string, (mark: Mark) => boolean> = {
  "any state": () => true,
  "not ok": (mark) => mark.rank > 0,
  "in alarm": (mark) => mark.rank >= 1 && mark.rank <= 3,
  "▲ minor": (mark) => mark.rank === 1,
  "◆ MAJOR": (mark) => mark.rank === 2,
  "✖ INVALID": (mark) => mark.rank === 3,
  "◌ stale": (mark) => mark.rank === 4,
  "⊘ disconnected": (mark) => mark.rank === 5,
  "○ never found": (mark) => mark.rank === 6,
};

const MOST_TRACES = 6;
const KEPT_POINTS = 2400;

export function markOf(state: WatchState, slot: number, role: Role): Mark {
  const place = 2 * slot + role;
  return channelMark(state.states[place]!, state.freshness[place]!, state.severities[place]!);
}

const displays = new WeakMap<ChannelMetadata, Display>();

export function displayOf(metadata: ChannelMetadata | undefined): Display {
  if (metadata === undefined) return {};
  let display = displays.get(metadata);
  if (display === undefined) {
    const labels = metadata.enumLabels.length > 0 ? metadata.enumLabels : undefined;
    displays.set(metadata, (display = { precision: metadata.precision, labels }));
  }
  return display;
}

function channelText(state: WatchState, slot: number, role: Role): string {
  if (!state.hasChannel(slot, role)) return "";
  return shownText(state.datum(slot, role), displayOf(state.metadataOf(slot, role)));
}

interface Filter {
  readonly search: string;
  readonly states: string;
  readonly device: string;
  readonly tag: string;
}

const EVERYTHING: Filter = { search: "", states: "any state", device: "", tag: "" };

/** Slots in order of name. */
function sortedSlots(state: WatchState): number[] {
  const { names } = state;
  return [...state.slots()].filter((slot) => names[slot] !== "").sort((a, b) => (names[a]! < names[b]! ? -1 : 1));
}

function filterSlots(store: PvStore, sorted: readonly number[], filter: Filter): number[] {
  const { state } = store.watch;
  const words = filter.search.toLowerCase().split(/\s+/).filter(Boolean);
  const passes = STATES[filter.states]!;
  const [group, tag] = filter.tag.split(": ");
  return sorted.filter((slot) => {
    if (filter.states !== "any state" && !passes(graver(markOf(state, slot, SETPOINT), markOf(state, slot, READBACK))))
      return false;
    const pv = store.catalog.get(state.numbers[slot]!);
    if (filter.device !== "" && pv?.device !== filter.device) return false;
    if (filter.tag !== "" && !pv?.tags.some((each) => each.group === group && each.tag === tag)) return false;
    if (words.length === 0) return true;
    const text = `${state.names[slot]} ${pv?.device ?? ""} ${pv?.description ?? ""}`.toLowerCase();
    return words.every((word) => text.includes(word));
  });
}

/** Points of chosen PVs since they were chosen, two a second. */
class Traces {
  readonly times: number[] = [];
  readonly values = new Map<number, (number | null)[]>();

  add(number: number): void {
    this.values.set(number, this.times.map(() => null));
  }

  sample(state: WatchState, isLive: boolean): void {
    if (this.values.size === 0) {
      this.times.length = 0;
      return;
    }
    this.times.push(Date.now() / 1000);
    for (const [number, points] of this.values) points.push(isLive ? plottedNumber(state, number) : null);
    if (this.times.length <= KEPT_POINTS) return;
    this.times.shift();
    for (const points of this.values.values()) points.shift();
  }
}

/** The readback, or the setpoint where there is none; null where nothing is to be believed. */
function plottedNumber(state: WatchState, number: number): number | null {
  const slot = state.slotOf(number);
  if (slot === undefined) return null;
  const role = state.hasChannel(slot, READBACK) ? READBACK : SETPOINT;
  const mark = markOf(state, slot, role);
  const value = numberOf(state.datum(slot, role));
  return mark.rank > 3 || !Number.isFinite(value) ? null : value;
}

/** The PV in the address, `#/pvs/NUMBER`; 0: none. */
const askedNumber = () => Number(location.hash.split("/")[2] ?? 0) || 0;

export function PvsTab() {
  const { pvs: store, may } = useSession();
  const { state } = store.watch;
  const mayHistory = may("snapshot.snapshots.history");
  const [filter, setFilter] = useState(EVERYTHING);
  const [shown, setShown] = useState<readonly number[]>([]);
  const [chosenNumber, setChosenNumber] = useState(askedNumber);
  const [plotted, setPlotted] = useState<readonly number[]>([]);
  const [showsHistory, setShowsHistory] = useState(false);
  const [imports, setImports] = useState(false);
  const traces = useRef(new Traces());
  const live = useRef({ store, shown, plotted });
  live.current = { store, shown, plotted };

  // which rows there are: when PVs come and go, the filter changes, or states that it asks for do
  useEffect(() => {
    let sorted: number[] = [];
    let population = -1;
    let catalogVersion = -1;
    let version = -1;
    let told: readonly number[] | undefined;
    const look = () => {
      const moved = state.population !== population || store.catalogVersion !== catalogVersion;
      if (!moved && (filter.states === "any state" || state.version === version) && told !== undefined) return;
      if (state.population !== population) sorted = sortedSlots(state);
      ({ population, version } = state);
      catalogVersion = store.catalogVersion;
      const next = filterSlots(store, sorted, filter);
      if (told === undefined || next.length !== told.length || next.some((slot, index) => slot !== told![index]))
        setShown((told = next));
    };
    let timer: ReturnType<typeof setTimeout>;
    const lookAgain = () => {
      look();
      timer = setTimeout(lookAgain, state.complete ? 300 : 100);
    };
    lookAgain();
    return () => clearTimeout(timer);
  }, [filter, store, state]);

  useEffect(() => {
    const timer = setInterval(() => traces.current.sample(state, store.watch.connection === "live"), 500);
    return () => clearInterval(timer);
  }, [store, state]);

  const togglePlot = (number: number) => {
    const { values } = traces.current;
    if (values.has(number)) values.delete(number);
    else if (values.size < MOST_TRACES) traces.current.add(number);
    setPlotted([...values.keys()]);
  };

  // who comes for one PV, as from its drift, sees its plot
  useEffect(() => {
    if (askedNumber() > 0 && !traces.current.values.has(askedNumber())) togglePlot(askedNumber());
    // eslint-disable-next-line react-hooks/exhaustive-deps
  }, []);

  const draw = useMemo<Draw>(
    () => (index, cells, row) => {
      const { shown: slots, store: pvs, plotted: traced } = live.current;
      const slot = slots[index]!;
      const mark = graver(markOf(state, slot, SETPOINT), markOf(state, slot, READBACK));
      const pv = pvs.catalog.get(state.numbers[slot]!);
      const units = state.metadataOf(slot, SETPOINT)?.units || state.metadataOf(slot, READBACK)?.units || "";
      const name = state.names[slot]!;
      row.classList.toggle("not-live", mark.rank > 3 || pvs.watch.connection !== "live");
      setMark(cells[0]!, mark.word, mark.look);
      setCell(cells[1]!, traced.includes(state.numbers[slot]!) ? `∿ ${name}` : name, "", name);
      setCell(cells[2]!, channelText(state, slot, SETPOINT));
      setCell(cells[3]!, channelText(state, slot, READBACK));
      setCell(cells[4]!, units);
      setCell(cells[5]!, pv?.device ?? "");
      setCell(cells[6]!, pv?.description ?? "", "dim", pv?.description ?? "");
    },
    [state],
  );

  const numberAt = (index: number) => state.numbers[shown[index]!] ?? 0;
  const chosen = shown.findIndex((slot) => state.numbers[slot] === chosenNumber);
  const set = (change: Partial<Filter>) => setFilter({ ...filter, ...change });
  if (imports)
    return (
      <Suspense fallback={<p>Loading …</p>}>
        <PvImport onClose={() => setImports(false)} />
      </Suspense>
    );
  const isFiltered = JSON.stringify(filter) !== JSON.stringify(EVERYTHING);
  return (
    <>
      <h1 className="sr">PVs</h1>
      <div className="bar">
        <input
          type="search"
          id="search"
          placeholder="Search name, device, description   ( / )"
          aria-label="Search name, device, description"
          value={filter.search}
          onChange={(event) => set({ search: event.target.value })}
        />
        <select aria-label="State" value={filter.states} onChange={(event) => set({ states: event.target.value })}>
          {Object.keys(STATES).map((name) => (
            <option key={name}>{name}</option>
          ))}
        </select>
        <select aria-label="Device" value={filter.device} onChange={(event) => set({ device: event.target.value })}>
          <option value="">any device</option>
          {store.devices.map((name) => (
            <option key={name}>{name}</option>
          ))}
        </select>
        <select aria-label="Tag" value={filter.tag} onChange={(event) => set({ tag: event.target.value })}>
          <option value="">any tag</option>
          {store.tags.map((name) => (
            <option key={name}>{name}</option>
          ))}
        </select>
        {isFiltered && <button onClick={() => setFilter(EVERYTHING)}>Clear filters</button>}
        <span className="dim" role="status">
          {counted(shown.length)} of {counted(state.size)} PVs
        </span>
        <button
          disabled={!may("catalog.pvs.import")}
          title={may("catalog.pvs.import") ? "" : "Your key may not import PVs: it takes the role editor"}
          onClick={() => setImports(true)}
        >
          Import …
        </button>
      </div>
      <div className="split">
        <div className="grow">
          <Grid
            label="PVs"
            columns={COLUMNS}
            count={shown.length}
            draw={draw}
            version={() => state.version + (store.watch.connection === "live" ? 0 : 0.5) + plotted.length / 16}
            chosen={chosen}
            onChoose={(index) => setChosenNumber(numberAt(index))}
            onKey={(key, index) => {
              if (index < 0) return false;
              if (key === "p") togglePlot(numberAt(index));
              else if (key === "h") setShowsHistory(mayHistory && !showsHistory);
              else return false;
              return true;
            }}
            empty={!state.complete ? "Waiting for the first values …" : isFiltered ? "No PV passes the filters." : "The catalog has no PVs yet: import a file of them, here or by drey pv import FILE.csv"}
          />
          {plotted.length > 0 && <TracePlot state={state} numbers={plotted} traces={traces.current} onRemove={togglePlot} />}
          {showsHistory && chosen >= 0 && <HistoryPanel state={state} number={chosenNumber} onClose={() => setShowsHistory(false)} />}
        </div>
        {chosen >= 0 && (
          <PvDetails
            key={chosenNumber}
            store={store}
            number={chosenNumber}
            isPlotted={plotted.includes(chosenNumber)}
            isFull={plotted.length >= MOST_TRACES}
            onPlot={() => togglePlot(chosenNumber)}
            showsHistory={showsHistory}
            onHistory={() => setShowsHistory(!showsHistory)}
            onClose={() => setChosenNumber(0)}
          />
        )}
      </div>
    </>
  );
}

function TracePlot(props: { state: WatchState; numbers: readonly number[]; traces: Traces; onRemove: (number: number) => void }) {
  const names = props.numbers.map((number) => props.state.names[props.state.slotOf(number) ?? -1] ?? "(gone)");
  return (
    <section className="panel" aria-label="Plot of chosen PVs">
      <Legend
        names={names}
        action={(index) => (
          <button aria-label={`Remove ${names[index]} from the plot`} onClick={() => props.onRemove(props.numbers[index]!)}>
            ×
          </button>
        )}
      />
      <div className="plots">
        <Plot
          label={`Values of ${names.join(", ")} since they were chosen`}
          series={names}
          isTime
          points={() => [props.traces.times, ...props.numbers.map((number) => props.traces.values.get(number) ?? [])]}
        />
      </div>
    </section>
  );
}

function HistoryPanel({ state, number, onClose }: { state: WatchState; number: number; onClose: () => void }) {
  const slot = state.slotOf(number);
  if (slot === undefined) return null;
  const types = [state.types[2 * slot]!, state.types[2 * slot + 1]!];
  return (
    <PvHistory
      number={number}
      name={state.names[slot]!}
      displays={[displayOf(state.metadataOf(slot, SETPOINT)), displayOf(state.metadataOf(slot, READBACK))]}
      isArray={types.some((type) => type >= ARRAY)}
      onClose={onClose}
    />
  );
}

/** Draws again a few times a second while what stands for the PV changes. */
function useRedraw(changed: () => string): void {
  const [, setSeen] = useState("");
  useEffect(() => {
    const timer = setInterval(() => setSeen(changed()), 250);
    return () => clearInterval(timer);
    // eslint-disable-next-line react-hooks/exhaustive-deps
  }, []);
}

interface DetailProps {
  readonly store: PvStore;
  readonly number: number;
  readonly isPlotted: boolean;
  readonly isFull: boolean;
  readonly onPlot: () => void;
  readonly showsHistory: boolean;
  readonly onHistory: () => void;
  readonly onClose: () => void;
}

function PvDetails({ store, number, isPlotted, isFull, onPlot, showsHistory, onHistory, onClose }: DetailProps) {
  const { may } = useSession();
  const [edits, setEdits] = useState(false);
  const [showsPolicy, setShowsPolicy] = useState(false);
  const { state } = store.watch;
  const slot = state.slotOf(number);
  useRedraw(() => `${slot === undefined ? -1 : state.changed[slot]} ${store.catalogVersion}`);
  if (slot === undefined) return null;
  const pv = store.catalog.get(number);
  const roles = ([SETPOINT, READBACK] as const).filter((role) => state.hasChannel(slot, role));
  const arrayRole = roles.findLast((role) => isPlottableArray(state.types[2 * slot + role]!));
  const isNumber = roles.some((role) => state.types[2 * slot + role]! !== Kind.String && state.types[2 * slot + role]! < ARRAY);
  return (
    <aside className="panel side stack" aria-label={`Details of ${state.names[slot]}`}>
      <div className="bar">
        <h2 className="mono">{state.names[slot]}</h2>
        <span className="space" />
        <button aria-label="Close details" onClick={onClose}>
          ×
        </button>
      </div>
      {pv?.description && <p>{pv.description}</p>}
      {pv !== undefined && !edits && (
        <button disabled={!may("catalog.pvs.update")} title={may("catalog.pvs.update") ? "" : "Your key may not edit the catalog: it takes the role editor"} onClick={() => setEdits(true)}>
          Edit …
        </button>
      )}
      {pv !== undefined && edits && <PvEdit pvId={pv.id} onClose={() => setEdits(false)} />}
      {isNumber && (
        <button aria-pressed={isPlotted} disabled={isFull && !isPlotted} onClick={onPlot}>
          {isPlotted ? "Remove from the plot (p)" : isFull ? `The plot has ${MOST_TRACES} PVs already` : "Plot (p)"}
        </button>
      )}
      {may("snapshot.snapshots.history") ? (
        <button aria-pressed={showsHistory} onClick={onHistory}>
          {showsHistory ? "Hide the history (h)" : "History through snapshots (h)"}
        </button>
      ) : (
        <p className="dim">Your key may not read histories.</p>
      )}
      {arrayRole !== undefined && (
        <div className="plots">
          <Plot
            label={`Elements of ${state.names[slot]}`}
            series={["element"]}
            isTime={false}
            points={() => pointsOf(state.datum(slot, arrayRole))}
          />
        </div>
      )}
      {roles.map((role) => (
        <ChannelFacts key={role} state={state} slot={slot} role={role} />
      ))}
      {pv !== undefined && (
        <dl className="facts">
          <dt>Device</dt>
          <dd>{pv.device || "—"}</dd>
          <dt>Tags</dt>
          <dd>{pv.tags.map(({ group, tag }) => `${group}: ${tag}`).join(", ") || "—"}</dd>
          <dt>Restores</dt>
          <dd>{pv.readOnly ? "never write it (read-only)" : pv.setpoint === undefined ? "never write it (no setpoint)" : "may write it"}</dd>
        </dl>
      )}
      {pv !== undefined && pv.setpoint !== undefined && may("catalog.policies.get") && (
        <>
          <button aria-expanded={showsPolicy} onClick={() => setShowsPolicy(!showsPolicy)}>
            How a restore treats it
          </button>
          {showsPolicy && <EffectivePolicy pvId={pv.id} etag={pv.etag} />}
        </>
      )}
    </aside>
  );
}

export function isPlottableArray(kind: number): boolean {
  return kind > ARRAY && kind % ARRAY !== Kind.String;
}

/** What is watched, and drawn, of an array that is larger than a plot. */
function extractWords({ total, step, decimation }: Extract): string {
  const which = decimation === ArrayDecimation.MIN_MAX ? `least and greatest of each ${counted(step)}` : `each ${counted(step)}th`;
  return `${which} of ${counted(total)} elements; a snapshot has all of them`;
}

function ChannelFacts({ state, slot, role }: { state: WatchState; slot: number; role: Role }) {
  const place = 2 * slot + role;
  const metadata = state.metadataOf(slot, role);
  const datum = state.datum(slot, role);
  const mark = markOf(state, slot, role);
  const isArray = datum.kind >= ARRAY;
  const extract = extractOf(datum);
  const range = (low: number, high: number) => `${low} … ${high}`;
  const limits = [
    ["Display range", metadata?.display],
    ["Warning outside", metadata?.warning],
    ["Alarm outside", metadata?.alarm],
    ["Drive range", metadata?.control],
  ] as const;
  return (
    <section>
      <h3>
        {role === SETPOINT ? "Setpoint" : "Readback"} <span className={`mark ${mark.look}`}>{mark.word}</span>
      </h3>
      <dl className="facts">
        <dt>Value</dt>
        <dd className="value">
          {shownText(datum, isArray ? displayOf(metadata) : { labels: displayOf(metadata).labels })} {metadata?.units}
        </dd>
        {extract !== undefined && <Fact title="Of these came" text={extractWords(extract)} />}
        <dt>Alarm</dt>
        <dd>{alarmWords(state.severities[place]!, state.statuses[place]!)}</dd>
        <dt>Time at the IOC</dt>
        <dd>{nanosecondsText(state.sourceTimes[place]!)}</dd>
        <dt>Address</dt>
        <dd className="mono">{metadata?.address || "—"}</dd>
        <dt>IOC</dt>
        <dd className="mono">{metadata?.host || "—"}</dd>
        <dt>Type</dt>
        <dd>
          {enumWords(ValueType[metadata?.nativeType ?? 0])}
          {metadata !== undefined && metadata.elementCount > 1n ? `, ${counted(metadata.elementCount)} elements` : ""}
        </dd>
        <dt>Connection</dt>
        <dd>{enumWords(ConnectionState[state.states[place]!])}</dd>
        <dt>Access</dt>
        <dd>{metadata?.writable ? "read and write" : metadata?.readable ? "read only" : "none"}</dd>
        {limits.map(([title, found]) =>
          found === undefined || found.low === found.high || Number.isNaN(found.low) ? null : (
            <Fact key={title} title={title} text={range(found.low, found.high)} />
          ),
        )}
        {metadata !== undefined && metadata.enumLabels.length > 0 && (
          <Fact title="Labels" text={metadata.enumLabels.map((label, index) => `${index} ${label}`).join(", ")} />
        )}
      </dl>
    </section>
  );
}

export function Fact({ title, text }: { title: string; text: string }) {
  return (
    <>
      <dt>{title}</dt>
      <dd>{text}</dd>
    </>
  );
}
