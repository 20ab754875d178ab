/** Personas with the editor's own picker: list, add, change, delete. */
import * as vscode from "vscode";

import type { Hub } from "../chat/hub";
import type { Persona } from "../protocol";
import { idFor } from "./names";

const ADD = "Add a persona …";

export async function managePersonas(hub: Hub): Promise<void> {
  const { personas } = await hub.request("persona/list", {});
  const items = [
    { label: `$(add) ${ADD}`, description: "", detail: "", persona: null },
    ...personas.map((persona) => ({
      label: persona.name,
      description: persona.role ?? "",
      detail: persona.instruction.split("\n")[0]?.slice(0, 120) ?? "",
      persona,
    })),
  ];
  const picked = await vscode.window.showQuickPick(items, { title: "Personas", matchOnDescription: true });
  if (!picked) return;
  if (picked.persona) await change(hub, picked.persona);
  else await add(hub, personas);
}

async function add(hub: Hub, known: Persona[]): Promise<void> {
  const asked = await ask({ name: "", role: "", instruction: "" });
  if (!asked) return;
  const personaId = idFor(asked.name, known.map((persona) => persona.personaId));
  await hub.request("persona/save", { persona: { personaId, ...asked } });
  void vscode.window.showInformationMessage(`${asked.name} can be talked to, and asked for feedback.`);
}

async function change(hub: Hub, persona: Persona): Promise<void> {
  const { personaId, name } = persona;
  const [edit, remove] = ["Change", "Delete"];
  const picked = await vscode.window.showQuickPick(persona.isBuiltIn ? [edit] : [edit, remove], { title: name });
  if (picked === edit) {
    const asked = await ask({ role: "", ...persona });
    if (asked) await hub.request("persona/save", { persona: { personaId, ...asked } });
  } else if (picked === remove) {
    const answer = await vscode.window.showWarningMessage(`Delete the persona ${name}?`, { modal: true }, remove);
    if (answer === remove) await hub.request("persona/delete", { personaId });
  }
}

type Words = Pick<Persona, "name" | "instruction"> & { role: string };

/** Undefined: the user left it. */
async function ask({ name, role, instruction }: Words): Promise<Words | undefined> {
  const box = (title: string, value: string, prompt: string, most: number, isNeeded = true) =>
    vscode.window.showInputBox({
      title,
      value,
      prompt,
      ignoreFocusOut: true,
      validateInput: (text) => {
        if (isNeeded && !text.trim()) return "Something has to be here.";
        return text.length > most ? `At most ${most} characters.` : null;
      },
    });
  const newName = await box("Name of the persona (1 of 3)", name, "As it is shown", 100);
  if (newName === undefined) return undefined;
  const newRole = await box("Role (2 of 3)", role, "In a few words, for a list; may be empty", 200, false);
  if (newRole === undefined) return undefined;
  const newInstruction = await box("Instruction (3 of 3)", instruction, "What the model is told to be", 20_000);
  if (newInstruction === undefined) return undefined;
  return { name: newName.trim(), role: newRole.trim(), instruction: newInstruction.trim() };
}
