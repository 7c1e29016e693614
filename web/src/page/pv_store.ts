/** All PVs, live, and what the catalog says of them: what the page shows, held outside of React. */
import type { DreyClient, Watch } from "@drey/client";
import type { Pv } from "../../gen/drey/catalog/v1/catalog_pb";
import { ArrayDecimation } from "../../gen/drey/common/v1/value_pb";

const PAGE_SIZE = 5000;
/** Least and greatest for each pixel of a plot beside the table. */
const PLOTTED_ELEMENTS = 800;
const LOOK_MS = 100;
/** Between two readings of the catalog, however often PVs join and leave. */
const CATALOG_PAUSE_MS = 5000;

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
  readonly #client: DreyClient;
  readonly #stop = new AbortController();
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

  /** Read the catalog when PVs joined or left. */
  async #followCatalog(): Promise<void> {
    const { signal } = this.#stop;
    while (!signal.aborted) {
      const { state } = this.watch;
      let pause = LOOK_MS;
      if (state.complete && state.population !== this.#catalogPopulation) {
        const population = state.population;
        try {
          await this.#readCatalog(signal);
          this.#catalogPopulation = population;
        } catch {
          // values go on without; it is tried again, and the banner tells of a server that is away
        }
        pause = CATALOG_PAUSE_MS;
      }
      await new Promise((resolve) => setTimeout(resolve, pause));
    }
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
