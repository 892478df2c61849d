import { spawn } from "node:child_process"

/** Has a shell clean up when this process ends, in whatever way, unless it is called off. */
export const afterwards = (script: string): { readonly callOff: () => void } => {
  const child = spawn("/bin/sh", ["-c", `read -r line || { ${script}; }`], {
    detached: true,
    stdio: ["pipe", "ignore", "ignore"]
  })
  child.unref()
  child.stdin.on("error", () => {})
  return { callOff: () => void child.stdin.end("called off\n") }
}
