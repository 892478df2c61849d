import { execFileSync } from "node:child_process"
import * as Path from "node:path"
import { program } from "./Program.ts"

/** Makes the command as the package has it, once for all tests. */
export default () => {
  execFileSync("npm", ["run", "--silent", "build:command"], {
    env: { ...process.env, COMMAND_DIR: Path.dirname(program) }
  })
}
