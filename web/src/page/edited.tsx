/** A thing of the server that is edited here: nobody's change is lost, since a save is refused where somebody was faster. */
import { useState } from "react";
import { changedFields, mergeDraft, type Draft } from "./draft";
import { FormButtons } from "./fields";
import { useActing, type Acting } from "./use_call";
import { enumWords } from "./words";

const MISMATCH = "ETAG_MISMATCH";

/** `restorePolicy` as people read it. */
const titleOf = (field: string) => enumWords(field.replace(/[A-Z]/g, (letter) => `_${letter}`));

export interface Edited<T, D extends Draft> extends Acting {
  /** As it was read last. */
  readonly thing: T;
  readonly draft: D;
  readonly set: (field: keyof D & string, value: string) => void;
  readonly isChanged: boolean;
  /** A save was refused, because it is another by now. */
  readonly isOvertaken: boolean;
  readonly conflicts: readonly string[];
  /** What is there, of a field. */
  readonly theirs: (field: string) => string;
  readonly merge: () => void;
}

/** `read`: as it is now, for who was slower. */
export function useEdited<T, D extends Draft>(first: T, draftOf: (thing: T) => D, read: (thing: T) => Promise<T>): Edited<T, D> {
  const [thing, setThing] = useState(first);
  const [draft, setDraft] = useState(() => draftOf(first));
  const [conflicts, setConflicts] = useState<readonly string[]>([]);
  const acting = useActing();
  const base = draftOf(thing);
  const merge = () =>
    acting.act(async () => {
      const now = await read(thing);
      const merged = mergeDraft(base, draft, draftOf(now));
      setThing(now);
      setDraft(merged.draft);
      setConflicts(merged.conflicts);
    });
  return {
    ...acting,
    thing,
    draft,
    set: (field, value) => setDraft((before) => ({ ...before, [field]: value })),
    isChanged: changedFields(base, draft).length > 0,
    isOvertaken: acting.refusal?.reason === MISMATCH,
    conflicts,
    theirs: (field) => base[field] ?? "",
    merge,
  };
}

/** What the other wrote, the way to take it over, and the buttons at the end of the form. */
export function EditedEnd<T, D extends Draft>({ edited, what, onClose }: { edited: Edited<T, D>; what: string; onClose: () => void }) {
  const { busy, conflicts, isChanged, isOvertaken, merge, theirs } = edited;
  return (
    <>
      {conflicts.length > 0 && (
        <div className="warning" role="status">
          ▲ You both changed the same. A save replaces what the other wrote:
          <ul>
            {conflicts.map((field) => (
              <li key={field}>
                {titleOf(field)}: <span className="mono">{theirs(field) || "empty"}</span>
              </li>
            ))}
          </ul>
        </div>
      )}
      {isOvertaken && (
        <p className="warning">
          ▲ Somebody else has changed this {what} since you opened it; nothing was saved.{" "}
          <button type="button" autoFocus disabled={busy} onClick={merge}>
            Take theirs, and keep what I typed
          </button>
        </p>
      )}
      <FormButtons busy={busy} isOff={!isChanged || isOvertaken} submit={isChanged ? "Save" : "Nothing is changed"} submitting="Saving …" onCancel={onClose} />
    </>
  );
}
