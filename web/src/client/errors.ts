/** Errors by their reason, which does not change, unlike their text. */
import { Code, ConnectError } from "@connectrpc/connect";
import { BadRequestSchema, ErrorInfoSchema } from "../../gen/google/rpc/error_details_pb";

/** The reason of Drey's, as `PLAN_EXPIRED`; empty where the server gave none. */
export function reasonOf(error: unknown): string {
  if (!(error instanceof ConnectError)) return "";
  return error.findDetails(ErrorInfoSchema)[0]?.reason ?? "";
}

/** Path of the field at fault, as `spec.guards[0].expression`; empty where the server names none. */
export function fieldOf(error: unknown): string {
  if (!(error instanceof ConnectError)) return "";
  const violated = error.findDetails(BadRequestSchema)[0]?.fieldViolations[0]?.field;
  return violated ?? error.findDetails(ErrorInfoSchema)[0]?.metadata.field ?? "";
}

const PASSING: ReadonlySet<Code> = new Set([
  Code.Unavailable,
  Code.Unknown, // a proxy that cuts a connection says no more than that
  Code.Internal,
  Code.Aborted,
  Code.Canceled,
  Code.DeadlineExceeded,
  Code.ResourceExhausted,
]);

/** Whether the same call may succeed later without anybody doing anything. */
export function passes(error: unknown): boolean {
  return PASSING.has(ConnectError.from(error).code);
}
