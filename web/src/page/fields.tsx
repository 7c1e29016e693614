/** Forms and their fields, each with what the server, or the page, refuses of it. */
import { createContext, useContext, useId, useLayoutEffect, useRef, useState, type ReactNode } from "react";
import { ErrorText } from "./tables";
import { FieldError, type Refusal } from "./use_call";

const RefusalContext = createContext<Refusal | undefined>(undefined);

interface FieldFormProps {
  readonly label: string;
  readonly className?: string;
  readonly refusal: Refusal | undefined;
  readonly onSubmit: () => void;
  readonly children: ReactNode;
}

/** A form whose refusal stands at the field that is at fault, which gets the focus; any other at its end. */
export function FieldForm({ label, className = "stack", refusal, onSubmit, children }: FieldFormProps) {
  const form = useRef<HTMLFormElement>(null);
  const [isAtField, setAtField] = useState(false);
  useLayoutEffect(() => {
    const wrong = refusal && form.current!.querySelector<HTMLElement>("[aria-invalid=true]");
    setAtField(Boolean(wrong));
    wrong?.focus();
  }, [refusal]);
  return (
    <form
      ref={form}
      className={className}
      aria-label={label}
      noValidate
      onSubmit={(event) => {
        event.preventDefault();
        onSubmit();
      }}
    >
      <RefusalContext value={refusal}>{children}</RefusalContext>
      {!isAtField && <ErrorText text={refusal?.text ?? ""} isAlert />}
    </form>
  );
}

interface FormButtonsProps {
  readonly busy: boolean;
  /** What the form does, and while it does it: "Take it", "Taking …". */
  readonly submit: string;
  readonly submitting: string;
  readonly isOff?: boolean;
  readonly onCancel: () => void;
}

/** The end of every form. */
export function FormButtons({ busy, submit, submitting, isOff = false, onCancel }: FormButtonsProps) {
  return (
    <div className="bar">
      <button className="main" disabled={busy || isOff}>
        {busy ? submitting : submit}
      </button>
      <button type="button" onClick={onCancel}>
        Cancel
      </button>
    </div>
  );
}

interface FieldProps {
  readonly label: string;
  /** Of the request, as `spec.guards[0].expression`. */
  readonly path: string;
  readonly isWide?: boolean;
  /** The control, with what tells that it is wrong. */
  readonly children: (aria: { "aria-invalid"?: true; "aria-describedby"?: string }) => ReactNode;
}

export function Field({ label, path, isWide = false, children }: FieldProps) {
  const refusal = useContext(RefusalContext);
  const id = useId();
  const isWrong = refusal !== undefined && (refusal.field === path || /^[.[]/.test(refusal.field.startsWith(path) ? refusal.field.slice(path.length) : ""));
  return (
    <div className={isWide ? "field wide" : "field"}>
      <label>
        {label} {children(isWrong ? { "aria-invalid": true, "aria-describedby": id } : {})}
      </label>
      {isWrong && (
        <p className="error" role="alert" id={id}>
          ✖ {refusal.text}
        </p>
      )}
    </div>
  );
}

interface TextFieldProps extends Omit<FieldProps, "children"> {
  readonly value: string;
  readonly onValue: (value: string) => void;
  readonly placeholder?: string;
  readonly size?: number;
  /** Names of a list to choose from, besides what is typed. */
  readonly choices?: readonly string[];
  /** More than 1: of several lines. */
  readonly lines?: number;
  readonly autoFocus?: boolean;
}

export function TextField({ value, onValue, choices, lines = 1, label, path, isWide = false, ...input }: TextFieldProps) {
  const list = useId();
  return (
    <Field label={label} path={path} isWide={isWide}>
      {(aria) =>
        lines > 1 ? (
          <textarea rows={lines} value={value} onChange={(event) => onValue(event.target.value)} {...input} {...aria} />
        ) : (
          <>
            <input
              value={value}
              onChange={(event) => onValue(event.target.value)}
              {...(choices === undefined ? {} : { list })}
              {...input}
              {...aria}
            />
            {choices !== undefined && (
              <datalist id={list}>
                {choices.map((each) => (
                  <option key={each} value={each} />
                ))}
              </datalist>
            )}
          </>
        )
      }
    </Field>
  );
}

/** The seconds that were typed, as the contracts have them; undefined where nothing was. */
export function typedDuration(text: string, path: string): { seconds: bigint; nanos: number } | undefined {
  const seconds = typedNumber(text, path);
  if (seconds === undefined) return undefined;
  const whole = Math.trunc(seconds);
  return { seconds: BigInt(whole), nanos: Math.round((seconds - whole) * 1e9) };
}

/** The number that was typed; undefined where nothing was. Anything else is refused at its field. */
export function typedNumber(text: string, path: string, isWhole = false): number | undefined {
  const trimmed = text.trim();
  if (trimmed === "") return undefined;
  const number = Number(trimmed);
  if (!Number.isFinite(number) || (isWhole && !Number.isInteger(number)))
    throw new FieldError(path, `${JSON.stringify(trimmed)} is no ${isWhole ? "whole " : ""}number`);
  return number;
}
