/**
 * Installs the archive in empty projects as the README says, and uses it: on each Node, with the lowest and the highest
 * versions of the dependencies, and with each compiler and way to resolve modules.
 *
 *   npm run check:matrix
 */
import { Effect } from "effect"
import * as Fs from "node:fs"
import * as Path from "node:path"
import * as EtcdServer from "../support/EtcdServer.ts"
import * as Consumer from "./consumer.ts"

const nodes = ["22.19.0", "24", "26"]
const compilers = ["5.9", "6.0", "7.0"]
const resolutions = [["NodeNext", "NodeNext"], ["ESNext", "Bundler"]] as const

const root = Path.resolve(import.meta.dirname, "../..")
const manifest = JSON.parse(Fs.readFileSync(Path.join(root, "package.json"), "utf8"))

const write = (text: string) => Effect.sync(() => void process.stdout.write(`${text}\n`))

const npm = (directory: string, ...args: ReadonlyArray<string>) =>
  Consumer.run(directory, "npm", [...args, "--prefer-offline", "--no-audit", "--no-fund"])

/** The first program of the README, and the name of its file. */
const program = Effect.sync(() => {
  const readme = Fs.readFileSync(Path.join(root, "README.md"), "utf8")
  const [, file, code] = /^Save this as `([\w.]+)`[^]*?^```ts\n([^]*?)^```$/m.exec(readme)!
  return { file: file!, code: code! }
})

/** A project that `npm init -y` makes, with the archive and its peers. */
const project = Effect.fnUntraced(function*(archive: string, versions: "lowest" | "highest") {
  const directory = yield* Consumer.temporary
  yield* Consumer.run(directory, "npm", ["init", "-y"])
  const peers: Readonly<Record<string, string>> = manifest.peerDependencies
  if (versions === "lowest") {
    const lowest = (ranges: Readonly<Record<string, string>>) =>
      Object.fromEntries(Object.entries(ranges).map(([name, range]) => [name, range.replace(/^[\^~]/, "")]))
    const file = Path.join(directory, "package.json")
    const own = JSON.parse(Fs.readFileSync(file, "utf8"))
    const content = { ...own, dependencies: lowest(peers), overrides: lowest(manifest.dependencies) }
    Fs.writeFileSync(file, JSON.stringify(content))
    yield* npm(directory, "install", archive)
    for (const [name, version] of Object.entries({ ...content.dependencies, ...content.overrides })) {
      const { version: installed } = JSON.parse(
        Fs.readFileSync(Path.join(directory, "node_modules", name, "package.json"), "utf8")
      )
      if (installed !== version) return yield* Effect.die(new Error(`${name} ${installed} is installed for ${version}`))
    }
  } else {
    yield* npm(directory, "install", archive, ...Object.entries(peers).map(([name, range]) => `${name}@${range}`))
  }
  const { code, file } = yield* program
  Fs.writeFileSync(Path.join(directory, file), code)
  Fs.copyFileSync(Path.join(import.meta.dirname, "programs/types.ts"), Path.join(directory, "types.mts"))
  return { directory, file }
})

interface Project {
  readonly directory: string
  readonly file: string
}

/** Runs the program and the command. */
const use = Effect.fnUntraced(function*(node: string, { directory, file }: Project, endpoint: string) {
  const env = { ETCDCTL_ENDPOINTS: endpoint }
  const program = yield* Consumer.run(directory, node, [file], env)
  yield* has(program, "writes the report")
  const command = yield* Consumer.run(
    directory,
    node,
    ["node_modules/effect-etcd-lock/dist/bin.js", "run", "matrix", "echo", "works"],
    env
  )
  yield* has(command, "works\n")
})

const has = ({ stderr, stdout }: Consumer.Output, text: string) =>
  stdout.includes(text) ? Effect.void : Effect.die(new Error(`'${text}' is missing in ${stdout}${stderr}`))

/** Installs a version of a tool, and returns the directory that it is in. */
const tool = Effect.fnUntraced(function*(specifier: string) {
  const directory = yield* Consumer.temporary
  yield* npm(directory, "install", "--prefix", directory, specifier)
  return Path.join(directory, "node_modules")
})

const checkNodes = Effect.fnUntraced(function*(archive: string, endpoint: string) {
  const highest = yield* project(archive, "highest")
  for (const version of nodes) {
    const node = Path.join(yield* tool(`node@${version}`), "node/bin/node")
    yield* use(node, highest, endpoint)
    yield* write(`Node ${version}, the highest versions: the program and the command run`)
  }
  yield* use(process.execPath, yield* project(archive, "lowest"), endpoint)
  yield* write("The lowest versions: the program and the command run")
  return highest
})

const checkCompilers = Effect.fnUntraced(function*({ directory }: Project) {
  for (const version of compilers) {
    const tsc = Path.join(yield* tool(`typescript@~${version}`), "typescript/bin/tsc")
    for (const [module, moduleResolution] of resolutions) {
      const options = ["--module", module, "--moduleResolution", moduleResolution, "--target", "ES2022"]
      // Since 6.0, a compiler that is given files asks to leave the configuration aside.
      const alone = version === "5.9" ? [] : ["--ignoreConfig"]
      yield* Consumer.run(directory, process.execPath, [tsc, ...alone, "--noEmit", "--strict", ...options, "types.mts"])
    }
    yield* write(`TypeScript ${version}: the types compile under NodeNext and bundler`)
  }
})

const check = Effect.gen(function*() {
  const { endpoint } = yield* EtcdServer.start()
  const archive = yield* Consumer.archive
  yield* checkCompilers(yield* checkNodes(archive, endpoint))
})

await Effect.runPromise(Effect.scoped(check))
