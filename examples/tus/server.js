// A tus server, of which any number of processes work behind one address.  See README.md.
import { createHash } from 'node:crypto'
import { createServer } from 'node:http'
import { basename } from 'node:path'
import { ERRORS, Metadata, Server } from '@tus/server'
import { call } from './database.js'
import { locker } from './locker.js'
import { reclaim } from './reclaim.js'
import { isLive, refusal, request, Store } from './store.js'

const { STORAGE, PORT = '1080', HOST = '127.0.0.1', MAX_SIZE = 100e9, KEEP_PARTIAL = '10 min', RECLAIM_MS = 10000 } = process.env
const path = '/files'
const store = new Store(STORAGE, Number(MAX_SIZE))

// The answers to outcomes and SQLSTATEs.  tus wants 409 for every offset but the current one.
const statuses = {
  replayed: 409, replaced: 409, conflict: 409, too_large: 413, incomplete: 409, fenced: 423, ended: 410, expired: 410,
  not_found: 404, locked: 423, VB001: 404, VB002: 409, VB003: 409, VB004: 410, VB005: 413, VB006: 409, VB007: 400,
  VB008: 423, VB009: 413, 23505: 409, '55P03': 423, '0A000': 503, 25006: 503, 40001: 503, ENOSPC: 507, EDQUOT: 507,
  ENOENT: 423 // a partial upload was removed
}

// What a request worked on is removed by another one that completes the upload, or because the upload has ended.
async function whyRemoved({ upload_id }) {
  const session = await call('get_upload', { upload_id })
  if (!session) return refusal(404, 'there is no such upload')
  if (isLive(session) || session.status === 'complete') return refusal(423, 'another request completes the upload')
  return refusal(410, `the upload is ${session.status}`)
}

async function answerTo(req, res, error) {
  const { session } = request.getStore()
  if (error.code === 'ENOENT' && session) error = await whyRemoved(session).catch((failure) => failure)
  let status = error.status_code ?? statuses[error.code]
  if (error === ERRORS.ABORTED) status = 423
  else if (error instanceof URIError || error.code?.startsWith('22')) status ??= 400
  else if (/^(08|53|57)/.test(error.code)) status ??= 503 // the database cannot be reached
  if (!status) console.error(error)
  return { status_code: status ?? 500, body: error.body ?? `${error.message}\n` }
}

const tus = new Server({ path, datastore: store, locker, relativeLocation: true, maxSize: store.maxSize,
  lockDrainTimeout: 1000, onResponseError: answerTo })

// @tus/server does not know concatenation: partial uploads pass it as others, final ones are made here.
const post = tus.handlers.POST
const create = post.send.bind(post)
post.send = async (req, res, context) => {
  const concat = req.headers['upload-concat']
  delete req.headers['upload-concat']
  if (!concat?.startsWith('final;')) {
    request.getStore().partial = concat === 'partial'
    return create(req, res, context)
  }
  if ('upload-length' in req.headers || 'upload-defer-length' in req.headers) throw refusal(400, 'a final upload has the length of its parts')
  const ids = concat.slice('final;'.length).split(' ').filter(Boolean).map((url) => decodeURIComponent(basename(url)))
  if (ids.length === 0) throw refusal(400, 'a final upload consists of partial ones')
  if (new Set(ids).size < ids.length) throw refusal(400, 'a partial upload is named twice')
  const id = createHash('sha256').update(ids.join(' ')).digest('hex')
  const metadata = req.headers['upload-metadata']
  await store.concatenate(id, ids, metadata && Metadata.parse(metadata))
  return post.write(res, 201, { Location: `${path}/${id}` })
}

const server = createServer((req, res) => {
  const version = req.headers['tus-resumable'] ?? '1.0.0'
  if (version !== '1.0.0') return res.writeHead(412, { 'Tus-Version': '1.0.0', 'Tus-Resumable': '1.0.0' }).end()
  request.run({ req, res, path }, () => tus.handle(req, res).catch((error) => res.destroy(error)))
})
server.requestTimeout = 0 // Node.js would end every upload after five minutes
server.listen(Number(PORT), HOST, () => console.log(`http://${HOST}:${PORT}${path}`))

const reclaimForever = () => reclaim(store, KEEP_PARTIAL).catch((error) => console.error(error.message))
  .finally(() => setTimeout(reclaimForever, Number(RECLAIM_MS)))
reclaimForever()
