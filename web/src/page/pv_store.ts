/** All PVs, live, and what the catalog says of them: what the page shows, held outside of React. */
import type { DreyClient, Watch } from "@drey/client";
import type { Pv } from "../../gen/drey/catalog/v1/catalog_pb";
import { EventKind, EventResource, type Event } from "../../gen/drey/event/v1/event_pb";
import { ArrayDecimation } from "../../gen/drey/common/v1/value_pb";

const PAGE_SIZE = 5000;
/** Least and greatest for each pixel of a plot beside the table. */
const PLOTTED_ELEMENTS = 800;
const LOOK_MS = 100;
/** Between two looks at the catalog, however often it changes. */
const CATALOG_PAUSE_MS = 5000;
/** For the changes since the last look to arrive. A stream that stays open would take one of the six connections of a browser. */
const EVENTS_MS = 1000;
/** Of more the whole catalog is read. */
const MOST_READ_ALONE = 50;

export class PvStore {
  readonly watch: Watch;
  /** By permanent number. */
  readonly catalog = new Map<number, Pv>();
  /** Grows when the catalog was read again. */
  catalogVersion = 0;
  /** What no waiting will mend. */
  failure: unknown;
  devices: readonly string[] = [];
  tags: readonly string[] = [];
  /** Of the watch when the catalog was read. */
  #catalogPopulation = -1;
  /** Up to where changes of the catalog are known. */
  #eventToken = "";
  readonly #client: DreyClient;
  readonly #stop = new AbortController();
  #wake: () => void = () => undefined;
  readonly #listeners = new Set<() => void>();

  constructor(client: DreyClient) {
    this.#client = client;
    // as much of an array as a plot shows, as often as it is drawn
    const arrayLimits = {
      maxElements: PLOTTED_ELEMENTS,
      decimation: ArrayDecimation.MIN_MAX,
      minInterval: { seconds: 0n, nanos: 500_000_000 },
    };
    this.watch = client.watch({ selector: { all: true }, arrayLimits }, { signal: this.#stop.signal });
    void this.#follow();
    void this.#followCatalog();
  }

  close(): void {
    this.#stop.abort();
  }

  /** Call when the connection, not a value, changes. */
  subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  /** What a banner says; changes only when that does. */
  connection = (): string => {
    const { connection, trouble, state } = this.watch;
    return `${connection}\n${trouble}\n${state.staleReason}\n${state.complete}`;
  };

  async #follow(): Promise<void> {
    let told = "";
    const tell = () => {
      const now = this.connection();
      if (now !== told) for (const listener of this.#listeners) listener();
      told = now;
    };
    try {
      for await (const _ of this.watch) tell();
    } catch (error) {
      this.failure = error;
    }
    tell();
  }

  /** Read the catalog when PVs joined or left, and what others change in it. */
  async #followCatalog(): Promise<void> {
    const { signal } = this.#stop;
    while (!signal.aborted) {
      const { state } = this.watch;
      let pause = LOOK_MS;
      if (state.complete && !document.hidden) {
        const population = state.population;
        try {
          const changed = await this.#changedPvs(signal);
          if (population !== this.#catalogPopulation || changed === undefined) await this.#readCatalog(signal);
          else if (changed.size > 0) await this.#readPvs(changed, signal);
          this.#catalogPopulation = population;
        } catch {
          // values go on without; it is tried again, and the banner tells of a server that is away
          this.#eventToken = "";
        }
        pause = CATALOG_PAUSE_MS;
      }
      await this.#sleep(pause);
    }
  }

  /** The time, or until the page is seen again, or somebody cannot wait. */
  #sleep(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const end = () => {
        clearTimeout(timer);
        document.removeEventListener("visibilitychange", end);
        resolve();
      };
      const timer = setTimeout(end, ms);
      document.addEventListener("visibilitychange", end);
      this.#wake = end;
    });
  }

  /** Ids of PVs that were edited since this was asked last; undefined where everything has to be read. */
  async #changedPvs(signal: AbortSignal): Promise<ReadonlySet<string> | undefined> {
    const ids = new Set<string>();
    let readsAll = false;
    const end = AbortSignal.any([signal, AbortSignal.timeout(EVENTS_MS)]);
    const resources = [EventResource.PV, EventResource.TAG, EventResource.TAG_GROUP];
    try {
      for await (const { part } of this.#client.event.watchEvents({ token: this.#eventToken, resources }, { signal: end })) {
        if (part.case === "begin" || part.case === "checkpoint") this.#eventToken = part.value.token;
        if (part.case === "begin" && !part.value.resumed) return undefined;
        if (part.case !== "events") continue;
        for (const event of part.value.events) {
          this.#eventToken = event.token;
          if (isEdit(event)) ids.add(event.id);
          else readsAll = true;
        }
      }
    } catch (error) {
      if (!end.aborted) throw error;
    }
    return readsAll || ids.size > MOST_READ_ALONE ? undefined : ids;
  }

  async #readPvs(ids: Iterable<string>, signal: AbortSignal): Promise<void> {
    for (const value of ids) {
      const { pv } = await this.#client.catalog.getPv({ key: { case: "id", value } }, { signal });
      this.catalog.set(Number(pv!.number), pv!);
    }
    this.#tellCatalog();
  }

  async #readCatalog(signal: AbortSignal): Promise<void> {
    const found = new Map<number, Pv>();
    let pageToken = "";
    do {
      const page = await this.#client.catalog.listPvs({ pageSize: PAGE_SIZE, pageToken }, { signal });
      for (const pv of page.pvs) found.set(Number(pv.number), pv);
      pageToken = page.nextPageToken;
    } while (pageToken !== "");
    this.catalog.clear();
    for (const [number, pv] of found) this.catalog.set(number, pv);
    this.#tellCatalog();
  }

  /** Read the catalog again soon: it was changed. */
  expireCatalog(): void {
    this.#catalogPopulation = -1;
    this.#wake();
  }

  /** One PV, as the catalog has just answered. */
  keepPv(pv: Pv): void {
    this.catalog.set(Number(pv.number), pv);
    this.#tellCatalog();
  }

  #tellCatalog(): void {
    const order = new Intl.Collator("en", { numeric: true }).compare;
    const pvs = [...this.catalog.values()];
    this.devices = [...new Set(pvs.map((pv) => pv.device).filter(Boolean))].sort(order);
    this.tags = [...new Set(pvs.flatMap((pv) => pv.tags.map(({ group, tag }) => `${group}: ${tag}`)))].sort(order);
    this.catalogVersion += 1;
    for (const listener of this.#listeners) listener();
  }
}

/** Of one PV, which is there before and after. */
function isEdit({ resource, kind, id }: Event): boolean {
  return resource === EventResource.PV && kind === EventKind.UPDATED && id !== "";
}
