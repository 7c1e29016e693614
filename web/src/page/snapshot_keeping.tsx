/** What may be changed of a snapshot, which is all but its values: title, comment, labels; delete, undelete. */
import { useState } from "react";
import { FieldForm, FormButtons } from "./fields";
import { useSession } from "./session";
import { ErrorText } from "./tables";
import { useActing } from "./use_call";
import type { Snapshot } from "../../gen/drey/snapshot/v1/snapshot_pb";

export function SnapshotKeeping({ snapshot, onChange }: { snapshot: Snapshot; onChange: () => void }) {
  const { client, may } = useSession();
  const [edits, setEdits] = useState(false);
  const [asks, setAsks] = useState(false);
  const { busy, error, act } = useActing();
  const { id, etag } = snapshot;
  if (snapshot.deleteTime !== undefined)
    return (
      <>
        <button
          disabled={busy || !may("snapshot.snapshots.undelete")}
          onClick={() => act(async () => (await client.snapshot.undeleteSnapshot({ id }), onChange()))}
        >
          ↶ Bring it back
        </button>
        <ErrorText text={error} isAlert />
      </>
    );
  return (
    <>
      <button disabled={!may("snapshot.snapshots.update")} aria-expanded={edits} onClick={() => setEdits(!edits)}>
        Edit title, comment, labels
      </button>
      {edits && <LabelForm snapshot={snapshot} onClose={() => (setEdits(false), onChange())} />}
      {asks ? (
        <div className="warning bar" role="alertdialog" aria-label="Delete the snapshot">
          <button
            className="danger"
            autoFocus
            disabled={busy}
            onClick={() => act(async () => (await client.snapshot.deleteSnapshot({ id, etag }), setAsks(false), onChange()))}
          >
            Delete it now
          </button>
          <button onClick={() => setAsks(false)}>Not now</button>
        </div>
      ) : (
        <button
          disabled={!may("snapshot.snapshots.delete") || snapshot.goldenMarks.length > 0}
          title={snapshot.goldenMarks.length > 0 ? "A golden snapshot is protected" : ""}
          onClick={() => setAsks(true)}
        >
          Delete …
        </button>
      )}
      <ErrorText text={error} isAlert />
    </>
  );
}

function LabelForm({ snapshot, onClose }: { snapshot: Snapshot; onClose: () => void }) {
  const { client } = useSession();
  const [title, setTitle] = useState(snapshot.title);
  const [comment, setComment] = useState(snapshot.comment);
  const [labels, setLabels] = useState(snapshot.labels.join(", "));
  const { busy, refusal, act } = useActing();
  const save = () =>
    act(async () => {
      const { id, etag } = snapshot;
      const wanted = labels.split(",").map((label) => label.trim()).filter(Boolean);
      await client.snapshot.updateSnapshot({
        snapshot: { id, etag, title, comment, labels: wanted },
        updateMask: { paths: ["title", "comment", "labels"] },
      });
      onClose();
    });
  return (
    <FieldForm label="Edit the snapshot" refusal={refusal} onSubmit={save}>
      <label className="wide">
        Title <input autoFocus value={title} onChange={(event) => setTitle(event.target.value)} />
      </label>
      <label className="wide">
        Comment <input value={comment} onChange={(event) => setComment(event.target.value)} />
      </label>
      <label className="wide">
        Labels <input placeholder="beam, shift 2" value={labels} onChange={(event) => setLabels(event.target.value)} />
      </label>
      <FormButtons busy={busy} submit="Save" submitting="Saving …" onCancel={onClose} />
    </FieldForm>
  );
}
