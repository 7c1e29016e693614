/** One connection to a Drey, in a browser or in Node, by gRPC-Web. */
import { Code, ConnectError, createClient, type Client, type Interceptor, type Transport } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";
import { MethodOptions_IdempotencyLevel } from "@bufbuild/protobuf/wkt";
import { AccessService } from "../../gen/drey/access/v1/access_service_pb";
import { AuditService } from "../../gen/drey/audit/v1/audit_service_pb";
import { CatalogService } from "../../gen/drey/catalog/v1/catalog_service_pb";
import { CompareService } from "../../gen/drey/compare/v1/compare_service_pb";
import { EventService } from "../../gen/drey/event/v1/event_service_pb";
import { JobService } from "../../gen/drey/job/v1/job_service_pb";
import { MonitorService } from "../../gen/drey/monitor/v1/monitor_service_pb";
import { PolicyService } from "../../gen/drey/policy/v1/policy_service_pb";
import { RestoreService } from "../../gen/drey/restore/v1/restore_service_pb";
import { SnapshotService } from "../../gen/drey/snapshot/v1/snapshot_service_pb";
import { SystemService } from "../../gen/drey/system/v1/system_service_pb";
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { ImportOptionsSchema, ImportPvsResponse } from "../../gen/drey/catalog/v1/catalog_service_pb";
import { importPvs } from "./import_pvs";
import { DriftWatch, Watch, type DriftSpecInit, type WatchOptions, type WatchSpecInit } from "./watch";
import { openWatch } from "./watch_wire";

export interface ClientOptions {
  /** Address of the site, as `drey up` prints it. */
  readonly url: string;
  readonly key: string;
  /** Instead of the transport by `url`, for tests. */
  readonly transport?: Transport;
}

const REPEATS = 4;
const FIRST_PAUSE_MS = 250;

/** A random UUID. `crypto.randomUUID` is there on secure sites only, a control room's may be plain. */
export function newRequestId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6]! & 0x0f) | 0x40;
  bytes[8] = (bytes[8]! & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

function authorize(key: string): Interceptor {
  return (next) => (request) => {
    request.header.set("authorization", `Bearer ${key}`);
    return next(request);
  };
}

/** Each acting call gets its `request_id` once, so that repeats of it do nothing twice. */
const giveRequestId: Interceptor = (next) => (request) => {
  if (!request.stream && "requestId" in request.message && request.message.requestId === "")
    request.message.requestId = newRequestId();
  return next(request);
};

/** Calls that may be repeated are, while the gateway is away. */
const repeat: Interceptor = (next) => async (request) => {
  const level = request.method.idempotency;
  const repeatable =
    !request.stream &&
    (level === MethodOptions_IdempotencyLevel.IDEMPOTENT || level === MethodOptions_IdempotencyLevel.NO_SIDE_EFFECTS);
  for (let attempt = 1; ; attempt++) {
    try {
      return await next(request);
    } catch (error) {
      const isAway = ConnectError.from(error).code === Code.Unavailable;
      if (!repeatable || !isAway || attempt > REPEATS || request.signal.aborted) throw error;
      const pause = FIRST_PAUSE_MS * 2 ** attempt * (0.5 + Math.random() / 2);
      await new Promise((resolve) => setTimeout(resolve, pause));
    }
  }
};

export class DreyClient {
  readonly access: Client<typeof AccessService>;
  readonly audit: Client<typeof AuditService>;
  readonly catalog: Client<typeof CatalogService>;
  readonly compare: Client<typeof CompareService>;
  readonly event: Client<typeof EventService>;
  readonly job: Client<typeof JobService>;
  readonly monitor: Client<typeof MonitorService>;
  readonly policy: Client<typeof PolicyService>;
  readonly restore: Client<typeof RestoreService>;
  readonly snapshot: Client<typeof SnapshotService>;
  readonly system: Client<typeof SystemService>;

  readonly #transport: Transport;
  readonly #options: ClientOptions;

  constructor(options: ClientOptions) {
    const { url, key, transport } = options;
    this.#options = options;
    const interceptors = [authorize(key), giveRequestId, repeat];
    const used = transport ?? createGrpcWebTransport({ baseUrl: url, interceptors });
    this.#transport = used;
    this.access = createClient(AccessService, used);
    this.audit = createClient(AuditService, used);
    this.catalog = createClient(CatalogService, used);
    this.compare = createClient(CompareService, used);
    this.event = createClient(EventService, used);
    this.job = createClient(JobService, used);
    this.monitor = createClient(MonitorService, used);
    this.policy = createClient(PolicyService, used);
    this.restore = createClient(RestoreService, used);
    this.snapshot = createClient(SnapshotService, used);
    this.system = createClient(SystemService, used);
  }

  /** Watch PVs until the signal says stop; goes on by itself after a cut. See `Watch`. */
  watch(spec: WatchSpecInit, options: WatchOptions = {}): Watch {
    return new Watch((request, signal) => openWatch(this.#transport, request, signal), spec, options);
  }

  /** Import a file of PVs, which `catalog.importPvs` cannot in a browser. Give a `requestId`, so that a repeat does nothing twice. */
  importPvs(options: MessageInitShape<typeof ImportOptionsSchema>, file: Uint8Array, signal: AbortSignal): AsyncIterable<ImportPvsResponse> {
    return importPvs(this.#options, options, file, signal);
  }

  /** Watch how the machine differs from a snapshot, as `watch`. */
  watchDrift(spec: DriftSpecInit, options: WatchOptions = {}): DriftWatch {
    return new DriftWatch((request, signal) => this.monitor.watchDrift(request, { signal }), spec, options);
  }
}
