/**
 * ImportPvs by gRPC-Web. A browser streams no request, and connect-web therefore has no such call; but the
 * messages of one may lie in one body, as they would follow each other in a stream.
 */
import { create, fromBinary, toBinary, type MessageInitShape } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { createEnvelopeReadableStream, encodeEnvelope } from "@connectrpc/connect/protocol";
import { requestHeader, trailerFlag, trailerParse, validateResponse, validateTrailer } from "@connectrpc/connect/protocol-grpc-web";
import { CatalogService, ImportPvsRequestSchema, ImportPvsResponseSchema, type ImportOptionsSchema, type ImportPvsResponse } from "../../gen/drey/catalog/v1/catalog_service_pb";

/** Below the server's limit of a message. */
const PART_BYTES = 1 << 20;

export interface ImportTarget {
  readonly url: string;
  readonly key: string;
}

export async function* importPvs(
  { url, key }: ImportTarget,
  options: MessageInitShape<typeof ImportOptionsSchema>,
  file: Uint8Array,
  signal: AbortSignal,
): AsyncGenerator<ImportPvsResponse> {
  const { name, parent } = CatalogService.method.importPvs;
  const headers = requestHeader(true, undefined, { authorization: `Bearer ${key}` }, false);
  const frames = [...requestParts(options, file)].map((part) => encodeEnvelope(0, part));
  const body = new Blob(frames as Uint8Array<ArrayBuffer>[]);
  let response;
  try {
    response = await fetch(`${url}/${parent.typeName}/${name}`, { method: "POST", headers, body, signal });
  } catch (error) {
    throw signal.aborted ? error : new ConnectError(error instanceof Error ? error.message : String(error), Code.Unavailable);
  }
  const { headerError } = validateResponse(response.status, response.headers);
  if (headerError !== undefined) throw headerError;
  let isEnded = false;
  for await (const { flags, data } of framesOf(response)) {
    if ((flags & trailerFlag) === 0) yield fromBinary(ImportPvsResponseSchema, data);
    else {
      validateTrailer(trailerParse(data), response.headers);
      isEnded = true;
    }
  }
  if (!isEnded) throw new ConnectError("the answer was cut", Code.Unavailable);
}

function* requestParts(options: MessageInitShape<typeof ImportOptionsSchema>, file: Uint8Array): Generator<Uint8Array> {
  const pack = (part: NonNullable<MessageInitShape<typeof ImportPvsRequestSchema>["part"]>) => toBinary(ImportPvsRequestSchema, create(ImportPvsRequestSchema, { part }));
  yield pack({ case: "options", value: options });
  for (let begin = 0; begin < file.length; begin += PART_BYTES) yield pack({ case: "data", value: file.subarray(begin, begin + PART_BYTES) });
}

async function* framesOf({ body }: Response) {
  if (body === null) return;
  const reader = createEnvelopeReadableStream(body).getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } catch (error) {
    throw error instanceof ConnectError ? error : new ConnectError(error instanceof Error ? error.message : String(error), Code.Unavailable);
  } finally {
    reader.releaseLock();
  }
}
