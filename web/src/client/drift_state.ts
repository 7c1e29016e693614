/** What a watch of drift holds: the PVs that are not the same. It knows no network, clock or browser. */
import { Freshness } from "../../gen/drey/common/v1/value_pb";
import type { DriftBegin, DriftRow, DriftSummary, WatchDriftResponse } from "../../gen/drey/monitor/v1/monitor_service_pb";

export class DriftState {
  /** Grows with each message that changed something. */
  version = 0;
  token = "";
  complete = false;
  begin: DriftBegin | undefined;
  summary: DriftSummary | undefined;
  /** Changes that newer ones replaced before they were sent. */
  merged = 0n;
  /** Why values are stale, in words, newest; empty where none is. */
  staleReason = "";
  /** By permanent number. */
  readonly rows = new Map<string, DriftRow>();

  beginStream(): void {
    this.complete = false;
  }

  forgetToken(): void {
    this.token = "";
  }

  apply({ part }: WatchDriftResponse): void {
    switch (part.case) {
      case "baselineBegin":
        this.begin = part.value;
        this.complete = false;
        if (!part.value.keepsState) {
          // cut before its end, this baseline leaves less than the old token promises
          this.token = "";
          this.rows.clear();
        }
        break;
      case "changed":
        for (const number of part.value.left) this.rows.delete(number);
        this.#put(part.value.rows);
        this.merged += part.value.merged;
        break;
      case "baseline":
        this.#put(part.value.rows);
        break;
      case "summary":
        this.summary = part.value;
        break;
      case "baselineEnd":
        this.token = part.value.token;
        this.complete = true;
        break;
      case "checkpoint":
        if (part.value.token !== "" && this.complete) this.token = part.value.token;
        return;
      case "freshness":
        this.#setFreshness(part.value.freshness, part.value.all ? undefined : part.value.pvNumbers);
        this.staleReason = part.value.freshness === Freshness.STALE ? part.value.reason : "";
        break;
      case "resyncRequired":
        this.token = "";
        break;
      default:
        return;
    }
    this.version += 1;
  }

  #put(rows: readonly DriftRow[]): void {
    for (const row of rows) this.rows.set(row.live!.number, row);
  }

  #setFreshness(freshness: Freshness, numbers: readonly string[] | undefined): void {
    for (const number of numbers ?? this.rows.keys()) {
      const live = this.rows.get(number)?.live;
      for (const value of [live?.setpoint, live?.readback]) if (value !== undefined) value.freshness = freshness;
    }
  }
}
