/** The parts of a restore policy, to be edited; what is left empty is said by others. */
import { Field, TextField } from "./fields";
import { isPolicyField, type PolicyDraft, type PolicyField } from "./policy_draft";
import { enumWords } from "./words";
import { Completion } from "../../gen/drey/catalog/v1/catalog_pb";

const COMPLETIONS = [Completion.SENT, Completion.PUT_CALLBACK, Completion.READBACK, Completion.DONE_CHANNEL].map((each) => Completion[each]!);

interface PolicyFieldsProps {
  readonly draft: PolicyDraft;
  readonly onChange: (field: PolicyField, value: string) => void;
  /** Of the policy in the request, as `pv.restore_policy`. */
  readonly path: string;
  readonly legend: string;
}

export function PolicyFields({ draft, onChange, path, legend }: PolicyFieldsProps) {
  const text = (field: PolicyField, label: string, name: string, more: { size?: number; placeholder?: string } = {}) => (
    <TextField label={label} path={`${path}.${name}`} size={6} value={draft[field]} onValue={(value) => onChange(field, value)} {...more} />
  );
  const changeCompletion = (value: string) => {
    onChange("completion", value);
    // which go with it
    if (value !== Completion[Completion.DONE_CHANNEL]) for (const field of ["doneChannel", "doneValue"].filter(isPolicyField)) onChange(field, "");
  };
  return (
    <fieldset>
      <legend>{legend}</legend>
      <div className="bar">
        <Field label="A write is done when" path={`${path}.completion`}>
          {(aria) => (
            <select value={draft.completion} onChange={(event) => changeCompletion(event.target.value)} {...aria}>
              <option value="">(not said)</option>
              {COMPLETIONS.map((each) => (
                <option key={each} value={each}>
                  {enumWords(each)}
                </option>
              ))}
            </select>
          )}
        </Field>
        {draft.completion === Completion[Completion.DONE_CHANNEL] && (
          <>
            {text("doneChannel", "Done channel", "done_channel", { size: 16, placeholder: ".DMOV" })}
            {text("doneValue", "is", "done_value", { size: 4, placeholder: "1" })}
          </>
        )}
        {text("timeout", "Late after seconds", "timeout")}
        {text("settle", "Readback settled for seconds", "settle")}
      </div>
      <div className="bar">
        {text("stage", "Stage", "stage", { size: 4 })}
        {text("rampStep", "Step at most", "ramp_step")}
        {text("rampRate", "Per second at most", "ramp_rate")}
        {text("allowedLow", "Never below", "allowed")}
        {text("allowedHigh", "Never above", "allowed_high")}
      </div>
    </fieldset>
  );
}
