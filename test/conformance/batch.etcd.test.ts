import * as World from "../support/World.ts"
import { suite } from "./batch.ts"

suite("etcd", World.make())
