/** Answers of calls as state of a component. */
import { useCallback, useEffect, useState } from "react";
import { fieldOf, reasonOf } from "@drey/client";
import { errorText } from "./words";

export interface Asked<T> {
  readonly answer: T | undefined;
  readonly error: string;
  /** Ask again now. */
  readonly again: () => void;
}

/**
 * Ask at once, when `key` changes, and, with a period, again and again while the page is seen: when it is seen again, at once. The
 * last answer stays while it fails.
 */
export function useAsked<T>(key: string, ask: (signal: AbortSignal) => Promise<T>, periodMs?: number): Asked<T> {
  const [result, setResult] = useState<{ key: string; answer: T | undefined; error: string }>({ key, answer: undefined, error: "" });
  const [round, setRound] = useState(0);
  useEffect(() => {
    const stop = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    let isAsking = false;
    const run = async () => {
      if (isAsking) return;
      isAsking = true;
      clearTimeout(timer);
      try {
        const answer = await ask(stop.signal);
        if (!stop.signal.aborted) setResult({ key, answer, error: "" });
      } catch (error) {
        if (!stop.signal.aborted)
          setResult((before) => ({ key, answer: before.key === key ? before.answer : undefined, error: errorText(error) }));
      }
      isAsking = false;
      if (periodMs !== undefined && !stop.signal.aborted) timer = setTimeout(lookAgain, periodMs);
    };
    const lookAgain = () => {
      if (!document.hidden) void run();
    };
    void run();
    if (periodMs !== undefined) document.addEventListener("visibilitychange", lookAgain);
    return () => {
      stop.abort();
      document.removeEventListener("visibilitychange", lookAgain);
      clearTimeout(timer);
    };
    // eslint-disable-next-line react-hooks/exhaustive-deps
  }, [key, round, periodMs]);
  const isOld = result.key !== key;
  const again = useCallback(() => setRound((count) => count + 1), []);
  return { answer: isOld ? undefined : result.answer, error: isOld ? "" : result.error, again };
}

/** Why an act was refused: in words, by the reason of the reference, and which field of the request is at fault. */
export interface Refusal {
  readonly text: string;
  readonly reason: string;
  readonly field: string;
  readonly cause: unknown;
}

/** What is wrong with a field before anybody is asked. */
export class FieldError extends Error {
  constructor(
    readonly field: string,
    text: string,
  ) {
    super(text);
  }
}

export interface Acting {
  readonly busy: boolean;
  readonly error: string;
  readonly refusal: Refusal | undefined;
  readonly act: (work: () => Promise<void>) => void;
}

/** One act at a time, with its error. */
export function useActing(): Acting {
  const [busy, setBusy] = useState(false);
  const [refusal, setRefusal] = useState<Refusal>();
  const act = useCallback((work: () => Promise<void>) => {
    setBusy(true);
    setRefusal(undefined);
    work()
      .catch((error: unknown) =>
        setRefusal({
          text: errorText(error),
          reason: reasonOf(error),
          field: error instanceof FieldError ? error.field : fieldOf(error),
          cause: error,
        }),
      )
      .finally(() => setBusy(false));
  }, []);
  return { busy, error: refusal?.text ?? "", refusal, act };
}
