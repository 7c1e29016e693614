/** What all tables of the page share: their heads, their busy, empty and wrong states, their search. */
import { useMemo, useState, type ReactNode } from "react";
import { Grid, type GridProps } from "./grid";
import type { Asked } from "./use_call";

export function ErrorText({ text, isAlert = false }: { text: string; isAlert?: boolean }) {
  if (text === "") return null;
  return (
    <p className="error" role={isAlert ? "alert" : undefined}>
      {text}
    </p>
  );
}

export interface ListColumn<Row> {
  readonly title: string;
  readonly isNumber?: boolean;
  readonly cell: (row: Row) => ReactNode;
}

interface ListProps<Row> {
  readonly label: string;
  /** The call that gives the rows. */
  readonly asked: Pick<Asked<unknown>, "answer" | "error">;
  readonly rows: readonly Row[];
  readonly columns: readonly ListColumn<Row>[];
  readonly idOf: (row: Row) => string;
  readonly chosen?: string;
  /** The first cell should hold a link or a button that does the same, for the keyboard. */
  readonly onChoose?: (row: Row) => void;
  readonly empty: string;
  readonly note?: ReactNode;
}

/** A list of some hundred rows. */
export function ListTable<Row>(props: ListProps<Row>) {
  const { asked, rows, columns, idOf, chosen, onChoose } = props;
  return (
    <>
      <ErrorText text={asked.error} />
      <div className="panel scrolls grow" tabIndex={0} role="region" aria-label={props.label}>
        <table className={onChoose === undefined ? "plain" : "plain chooses"}>
          <thead>
            <tr>
              {columns.map(({ title, isNumber }) => (
                <th key={title} className={isNumber ? "num" : ""}>
                  {title}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {rows.map((row) => (
              <tr key={idOf(row)} aria-current={idOf(row) === chosen ? "true" : undefined} onClick={onChoose && (() => onChoose(row))}>
                {columns.map(({ title, isNumber, cell }) => (
                  <td key={title} className={isNumber ? "num" : ""}>
                    {cell(row)}
                  </td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
        {rows.length === 0 && <p className="empty">{asked.answer === undefined && asked.error === "" ? "Asking …" : props.empty}</p>}
        {props.note}
      </div>
    </>
  );
}

interface SearchedGridProps extends GridProps {
  readonly search: string;
  readonly onSearch: (text: string) => void;
  readonly searchLabel: string;
  readonly placeholder: string;
  /** Beside the search. */
  readonly children?: ReactNode;
  readonly error?: string;
  /** Said instead of `empty` while the rows are not there yet. */
  readonly busy?: string;
}

/** Any number of rows, with a search above them. */
export function SearchedGrid({ search, onSearch, searchLabel, placeholder, children, error = "", busy = "", ...grid }: SearchedGridProps) {
  return (
    <>
      <ErrorText text={error} />
      <div className="bar">
        <input
          type="search"
          aria-label={searchLabel}
          placeholder={`${placeholder}   ( / )`}
          value={search}
          onChange={(event) => onSearch(event.target.value)}
        />
        {children}
      </div>
      <Grid {...grid} empty={busy || grid.empty} />
    </>
  );
}

interface FilteredGridProps<Row> extends Pick<SearchedGridProps, "label" | "columns" | "placeholder" | "searchLabel" | "error" | "busy" | "empty"> {
  readonly rows: readonly Row[];
  /** What the search looks in. */
  readonly textOf: (row: Row) => string;
  /** Draws one row. Another function draws all rows again. */
  readonly draw: (row: Row, cells: HTMLElement[]) => void;
  /** Beside the search; gets the rows that it leaves. */
  readonly children?: (shown: readonly Row[]) => ReactNode;
  /** Beside the table, of the row that is chosen. */
  readonly details?: (row: Row, close: () => void) => ReactNode;
}

/** Rows that are all here, with a search in them. It never changes which row is chosen. */
export function FilteredGrid<Row>({ rows, textOf, draw, children, details, ...grid }: FilteredGridProps<Row>) {
  const [search, setSearch] = useState("");
  const [chosenRow, setChosenRow] = useState<Row>();
  const shown = useMemo(() => {
    const passes = searched(search);
    return rows.filter((row) => passes(textOf(row)));
    // what a row's text is does not change
    // eslint-disable-next-line react-hooks/exhaustive-deps
  }, [rows, search]);
  const chosen = chosenRow === undefined ? -1 : shown.indexOf(chosenRow);
  return (
    <div className="split">
      <div className="grow">
        <SearchedGrid
          {...grid}
          count={shown.length}
          draw={(index, cells) => draw(shown[index]!, cells)}
          chosen={chosen}
          onChoose={(index) => setChosenRow(shown[index])}
          search={search}
          onSearch={setSearch}
        >
          {children?.(shown)}
        </SearchedGrid>
      </div>
      {chosenRow !== undefined && rows.includes(chosenRow) && details?.(chosenRow, () => setChosenRow(undefined))}
    </div>
  );
}

/** Whether a text has all words of a search. */
export function searched(search: string): (text: string) => boolean {
  const words = search.toLowerCase().split(/\s+/).filter(Boolean);
  return (text) => words.every((word) => text.toLowerCase().includes(word));
}
